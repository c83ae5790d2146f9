#include "failover/route_state.h"

namespace holdfast::failover {

std::string_view to_string(State state) {
  switch (state) {
    case State::pass: return "pass";
    case State::hold: return "hold";
    case State::drain: return "drain";
  }
  return "pass";
}

std::string_view to_string(Mode mode) {
  switch (mode) {
    case Mode::automatic: return "auto";
    case Mode::hold: return "hold";
    case Mode::pass: return "pass";
  }
  return "auto";
}

std::optional<Mode> parse_mode(std::string_view name) {
  for (Mode mode : {Mode::automatic, Mode::hold, Mode::pass})
    if (to_string(mode) == name) return mode;
  return std::nullopt;
}

/// Brings the state in line with all inputs. is_news: the status changes even when the state does not.
bool RouteState::decide(const std::string& by, const std::string& reason, std::int64_t now_us, bool is_news) {
  bool must_hold = is_flagged_ || status_.mode == Mode::hold || (status_.mode == Mode::automatic && is_breaker_open_);
  State wanted = must_hold ? State::hold : is_backlog_empty_ ? State::pass : status_.state == State::pass ? State::pass : State::drain;
  if (wanted == status_.state && !is_news) return false;
  status_.state = wanted;
  status_.since_us = now_us;
  status_.by = by;
  status_.reason = reason;
  return true;
}

bool RouteState::set_mode(Mode mode, const std::string& by, const std::string& reason, std::int64_t now_us) {
  bool is_news = mode != status_.mode;
  status_.mode = mode;
  return decide(by, reason, now_us, is_news);
}

bool RouteState::set_flag(bool is_there, const std::string& by, std::int64_t now_us) {
  bool is_news = is_there != is_flagged_;
  is_flagged_ = is_there;
  return decide(by, is_there ? "the flag file is there" : "the flag file is gone", now_us, is_news);
}

bool RouteState::set_breaker(bool is_open, const std::string& reason, std::int64_t now_us) {
  is_breaker_open_ = is_open;
  return decide("breaker", is_open ? reason : "the primary answers again", now_us, false);
}

bool RouteState::set_backlog(bool is_empty, std::int64_t now_us) {
  is_backlog_empty_ = is_empty;
  return decide("drain", is_empty ? "all held mail is settled" : "held mail is left", now_us, false);
}

}  // namespace holdfast::failover
