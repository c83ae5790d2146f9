// What is known of a primary's ways, address by address: servers differ in what they let a connection do that several clients share.
//
// A decision only, with the clock handed in. Not thread-safe; one a loop.
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <string>

namespace holdfast::failover {

class PrimaryHabits {
 public:
  using Time = std::chrono::steady_clock::time_point;
  using Span = std::chrono::milliseconds;

  /// It takes so many greetings on a connection and no more (OpenSMTPD, one), or answers further ones ever more slowly (Sendmail, three).
  /// Forgotten after an hour: it may have been slow for once.
  void takes_greetings(const std::string& address, std::uint64_t most, Time now);
  /// Whether a connection that has had so many greetings may have one more.
  bool takes_another_greeting(const std::string& address, std::uint64_t greetings, Time now) const;

  /// So long it took for the first greeting on a connection.
  void greeted_after(const std::string& address, Span took);
  /// When it has not answered a further greeting by then, it had enough with those before.
  Span patience_with_greeting(const std::string& address) const;

  /// It refuses an envelope that comes before it has answered for the message ahead, though it pipelines (Haraka).
  void takes_no_followers(const std::string& address) { habits_[address].takes_followers = false; }
  bool takes_followers(const std::string& address) const;

 private:
  struct Habit {
    std::uint64_t most_greetings = UINT64_MAX;
    Time forgotten_at{};
    Span greeting_takes{0};
    bool takes_followers = true;
  };
  const Habit& of(const std::string& address) const;

  std::map<std::string, Habit> habits_;  ///< of those that have any
};

}  // namespace holdfast::failover
