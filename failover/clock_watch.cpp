#include "failover/clock_watch.h"

#include <algorithm>
#include <cstdlib>

namespace holdfast::failover {
namespace {

/// What a clock may be put right by without having jumped, in microseconds.
constexpr std::int64_t largest_step_us = 60'000'000;
constexpr ClockWatch::Steady::duration longest_trial = std::chrono::hours(1);

}  // namespace

void ClockWatch::look(std::int64_t now_us, Steady::time_point steady) {
  std::int64_t offset_us = now_us - std::chrono::duration_cast<std::chrono::microseconds>(steady.time_since_epoch()).count();
  bool is_first = looked_ == Steady::time_point();
  bool has_jumped = is_first || std::abs(offset_us - offset_us_) > largest_step_us;
  looked_ = steady;
  if (!has_jumped) return;
  offset_us_ = offset_us;
  even_since_ = steady;
}

bool ClockWatch::is_trusted_after(Steady::duration term) const {
  return looked_ - even_since_ >= std::min(longest_trial, term / 100) && looked_ > even_since_;
}

}  // namespace holdfast::failover
