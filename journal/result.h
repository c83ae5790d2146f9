// What a fallible function returns: a value, or an Error that a person can act on.
//
// Errors are values wherever the caller can do something about them. Exceptions stay for what is broken beyond
// the function: out of memory, a bug.
#pragma once

#include <cassert>
#include <string>
#include <utility>
#include <variant>

namespace holdfast {

/// What kind of failure it is, for the caller's decision; the sentence for the person is in Error::message.
enum class ErrorCode {
  invalid,      ///< the input makes no sense
  not_found,    ///< there is no such thing
  permission,   ///< the operating system does not let us
  no_space,     ///< disk or map full; may pass when space returns
  io,           ///< the disk or the operating system failed
  corrupt,      ///< stored data is damaged
  wrong_key,    ///< the key does not open what is stored
  busy,         ///< someone else holds it
  unavailable,  ///< not now; may pass
  no_daemon,    ///< nobody is there to be asked
};

struct Error {
  ErrorCode code;
  std::string message;  ///< names the thing and the remedy
};

/// Whether what is stored cannot be read, now or later: nothing else need wait for it.
inline bool is_damage(const Error& error) { return error.code == ErrorCode::corrupt || error.code == ErrorCode::wrong_key; }

template <class T>
class [[nodiscard]] Result {
 public:
  Result(T value) : state_(std::move(value)) {}
  Result(Error error) : state_(std::move(error)) {}

  explicit operator bool() const { return state_.index() == 0; }
  T& operator*() { return std::get<0>(state_); }
  const T& operator*() const { return std::get<0>(state_); }
  T* operator->() { return &std::get<0>(state_); }
  const T* operator->() const { return &std::get<0>(state_); }
  const Error& error() const { return std::get<1>(state_); }

 private:
  std::variant<T, Error> state_;
};

template <>
class [[nodiscard]] Result<void> {
 public:
  Result() = default;
  Result(Error error) : error_(std::move(error)), failed_(true) {}

  explicit operator bool() const { return !failed_; }
  const Error& error() const {
    assert(failed_);
    return error_;
  }

 private:
  Error error_{ErrorCode::invalid, {}};
  bool failed_ = false;
};

using Status = Result<void>;

}  // namespace holdfast
