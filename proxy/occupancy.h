// Occupancy: how many connections Holdfast has to each address of its primaries, how many wait for one, whether it answers, and knows
// chunks, over all loops.
//
// A primary may take only so many from one address, and all of them are Holdfast's.
#pragma once

#include <atomic>
#include <chrono>
#include <map>
#include <memory>
#include <mutex>
#include <string>

#include "proxy/network.h"

namespace holdfast::proxy {

class Occupancy {
 public:
  struct Address {
    explicit Address(std::string text) : name(std::move(text)) {}
    const std::string name;                     ///< host and port
    std::atomic<std::uint64_t> attempts{0};     ///< that the primary has not answered yet
    std::atomic<std::uint64_t> connections{0};  ///< that it has greeted
    std::atomic<std::uint64_t> waiting{0};
    std::atomic<bool> takes_chunks{false};  ///< as it said last (RFC 3030)

    /// Whether somebody has a connection, or had one so short ago that it may not have noticed the end.
    bool is_serving() const { return connections > 0 || std::chrono::steady_clock::now() < last_end_.load() + notices_end_within; }
    /// Whether a connection that it refuses may be one too many: it may refuse one before it greets another.
    bool may_be_full() const { return attempts > 1 || is_serving(); }

    /// Notes why it does not answer, or "" that it does. Returns whether that is news.
    bool note(const std::string& problem) {
      std::lock_guard lock(mutex_);
      if (problem == problem_) return false;
      problem_ = problem;
      return true;
    }
    /// What was noted last, by whomever.
    std::string problem() const {
      std::lock_guard lock(mutex_);
      return problem_;
    }

   private:
    friend class Occupancy;
    static constexpr std::chrono::seconds notices_end_within{2};
    std::atomic<std::chrono::steady_clock::time_point> last_end_{std::chrono::steady_clock::time_point::min()};
    mutable std::mutex mutex_;
    std::string problem_;
  };
  using Count = std::atomic<std::uint64_t> Address::*;

  /// Counts one for as long as it lives.
  class One {
   public:
    One(std::shared_ptr<Address> address, Count count) : address_(std::move(address)), count_(count) { ++((*address_).*count_); }
    ~One() { leave(); }
    One(const One&) = delete;
    One& operator=(const One&) = delete;
    /// It counts there from now on. At no moment does it count nowhere.
    void move_to(Count count) {
      ++((*address_).*count);
      leave();
      count_ = count;
    }

   private:
    void leave() {
      if (count_ == &Address::connections) address_->last_end_ = std::chrono::steady_clock::now();
      --((*address_).*count_);
    }
    std::shared_ptr<Address> address_;
    Count count_;
  };

  /// Thread-safe. What is returned lives for as long as somebody has it.
  std::shared_ptr<Address> of(const HostPort& address) {
    std::lock_guard lock(mutex_);
    std::string name = to_string(address);
    std::shared_ptr<Address>& found = addresses_[name];
    if (!found) found = std::make_shared<Address>(name);
    return found;
  }

 private:
  std::mutex mutex_;
  std::map<std::string, std::shared_ptr<Address>> addresses_;
};

}  // namespace holdfast::proxy
