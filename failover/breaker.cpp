#include "failover/breaker.h"

#include <algorithm>

namespace holdfast::failover {

void Breaker::trip(Time now, const std::string& why) {
  reason_ = why;
  is_healthy_ = false;
  if (is_open_) return;
  is_open_ = true;
  bool is_relapse = was_released_ && now - released_at_ < options_.relapse_within;
  Span longest = options_.release_after * options_.longest_release;
  release_ = is_relapse ? std::min(current_release() * 2, longest) : options_.release_after;
}

void Breaker::succeeded(Time now) {
  last_success_ = now;
  failures_ = 0;
  falters_ = 0;
  if (!is_open_) {
    reason_.clear();
    return;
  }
  if (!is_healthy_) healthy_since_ = now;
  is_healthy_ = true;
  if (now - healthy_since_ < current_release()) return;
  is_open_ = false;
  was_released_ = true;
  released_at_ = now;
  reason_.clear();
}

void Breaker::failed(Time now, const std::string& why) {
  if (is_open_) {
    is_healthy_ = false;
    reason_ = why;
    return;
  }
  if (failures_++ == 0) failing_since_ = now;
  reason_ = why;
  bool is_often = options_.trip_failures > 0 && failures_ >= options_.trip_failures;
  bool is_long = options_.trip_after > Span::zero() && failures_ >= 2 && now - failing_since_ >= options_.trip_after;
  if (is_often || is_long) trip(now, why);
}

void Breaker::faltered(Time now, const std::string& why) {
  if (is_open_) return failed(now, why);
  if (falters_ == 0 || now - flood_since_ > options_.flood_window) {
    falters_ = 0;
    flood_since_ = now;
  }
  if (++falters_ >= options_.flood_count) trip(now, why);
}

void Breaker::gave_up(Time now, Time since, const std::string& why) {
  if (last_success_ > since) return;
  trip(now, why);
}

void Breaker::start_open(const std::string& why) {
  is_open_ = true;
  reason_ = why;
}

}  // namespace holdfast::failover
