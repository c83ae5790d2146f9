// The state of a route: pass, hold or drain, out of what the breaker sees and what operators want.
//
// A pure state machine. Each change has an author and a reason, and is to be journaled. Not thread-safe.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace holdfast::failover {

/// The numbers are part of the journal's format.
enum class State : std::uint8_t { pass = 0, hold = 1, drain = 2 };
enum class Mode : std::uint8_t { automatic = 0, hold = 1, pass = 2 };

std::string_view to_string(State state);
std::string_view to_string(Mode mode);  ///< "auto", "hold", "pass"
std::optional<Mode> parse_mode(std::string_view name);

class RouteState {
 public:
  struct Status {
    State state = State::pass;
    Mode mode = Mode::automatic;
    std::int64_t since_us = 0;  ///< microseconds since 1970 UTC
    std::string by = "start", reason;
  };

  RouteState() = default;
  /// As it was before a restart.
  explicit RouteState(Status before) : status_(std::move(before)) {}

  // Inputs. Each returns true when the status has changed.
  bool set_mode(Mode mode, const std::string& by, const std::string& reason, std::int64_t now_us);
  bool set_flag(bool is_there, const std::string& by, std::int64_t now_us);
  bool set_breaker(bool is_open, const std::string& reason, std::int64_t now_us);
  bool set_backlog(bool is_empty, std::int64_t now_us);

  const Status& status() const { return status_; }
  bool is_flagged() const { return is_flagged_; }

 private:
  bool decide(const std::string& by, const std::string& reason, std::int64_t now_us, bool is_news);

  Status status_;
  bool is_flagged_ = false, is_breaker_open_ = false, is_backlog_empty_ = true;
};

}  // namespace holdfast::failover
