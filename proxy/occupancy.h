// Occupancy: how many connections Holdfast has to each address of its primaries, how many wait for one, and whether it answers, over all
// loops.
//
// A primary may take only so many from one address, and all of them are Holdfast's.
#pragma once

#include <atomic>
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
    bool is_serving() const { return connections.load(std::memory_order_relaxed) > 0; }
    std::atomic<std::uint64_t> waiting{0};

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
    mutable std::mutex mutex_;
    std::string problem_;
  };
  /// Counts one for as long as it lives.
  class One {
   public:
    One(std::shared_ptr<Address> address, std::atomic<std::uint64_t> Address::*count) : address_(std::move(address)), count_((*address_).*count) {
      count_.fetch_add(1, std::memory_order_relaxed);
    }
    ~One() { count_.fetch_sub(1, std::memory_order_relaxed); }
    One(const One&) = delete;
    One& operator=(const One&) = delete;

   private:
    std::shared_ptr<Address> address_;
    std::atomic<std::uint64_t>& count_;
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
