// The line of those who log in from one network: one at a time has a password checked. So guesses over many connections at once are counted
// one by one, and keep nobody elsewhere waiting.
#pragma once

#include <deque>
#include <map>
#include <string>

#include "proxy/loop.h"

namespace holdfast::proxy {

/// Of one loop.
class LoginLine {
 public:
  /// A place at the end of the network's line, left when it is destroyed.
  class Place {
   public:
    /// @param wakeup  fired when everybody ahead has gone; it and the line must outlive the place
    Place(LoginLine& line, std::string network, Wakeup& wakeup) : line_(line), network_(std::move(network)), wakeup_(wakeup) {
      line_.waiting_[network_].push_back(&wakeup_);
    }
    ~Place() {
      auto network = line_.waiting_.find(network_);
      bool was_first = is_first();
      std::erase(network->second, &wakeup_);
      if (network->second.empty())
        line_.waiting_.erase(network);
      else if (was_first)
        network->second.front()->fire();
    }
    Place(const Place&) = delete;
    Place& operator=(const Place&) = delete;

    bool is_first() const { return line_.waiting_.at(network_).front() == &wakeup_; }

   private:
    LoginLine& line_;
    const std::string network_;
    Wakeup& wakeup_;
  };

 private:
  std::map<std::string, std::deque<Wakeup*>> waiting_;  ///< by network
};

}  // namespace holdfast::proxy
