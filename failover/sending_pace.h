// How much people send: so many recipients in an hour and no more, since who has stolen a password sends to all the world.
#pragma once

#include <cstdint>
#include <deque>
#include <string>
#include <unordered_map>

#include "failover/breaker.h"

namespace holdfast::failover {

/// Counts over the last hour, to the message. Not thread-safe.
class SendingPace {
 public:
  /// How many recipients the person has written to within the hour before.
  std::uint64_t recipients_of(const std::string& person, Time now);
  void sent(const std::string& person, std::uint64_t recipients, Time now);
  /// A message to so many, which was counted, was not taken after all.
  void not_sent(const std::string& person, std::uint64_t recipients);
  /// Who is counted at this moment.
  std::size_t people() const { return sent_.size(); }

 private:
  struct Message {
    Time when;
    std::uint64_t recipients;
  };
  void forget_old(Time now);

  std::unordered_map<std::string, std::deque<Message>> sent_;
  Time looked_at_{};
};

}  // namespace holdfast::failover
