// Work beside mail goes on in small steps with pauses between them, so that mail keeps the processors and the disk.
#pragma once

#include <chrono>
#include <functional>

namespace holdfast::journal {

/// Of one job, on one thread.
class Pace {
 public:
  /// Never pauses.
  Pace() = default;
  /// Pauses, while nobody says that the job is urgent.
  explicit Pace(std::function<bool()> is_urgent) : is_urgent_(std::move(is_urgent)) {}
  /// To be called often. Sleeps for thrice the time since the last pause, once that is some milliseconds.
  void step();

 private:
  using Clock = std::chrono::steady_clock;
  std::function<bool()> is_urgent_;
  Clock::time_point begin_ = Clock::now();
};

}  // namespace holdfast::journal
