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
  /// Pauses for thrice the time that it works, while nobody says that the job is urgent.
  static Pace gentle(std::function<bool()> is_urgent);
  /// Somebody waits for the job: pauses for as long as it works, and only where others want the processors.
  static Pace brisk();

  /// To be called often. Pauses once there was work of some milliseconds.
  void step();

 private:
  using Clock = std::chrono::steady_clock;
  explicit Pace(std::function<int()> pause) : pause_(std::move(pause)) {}

  std::function<int()> pause_;  ///< how many times as long as the work was
  Clock::time_point begin_ = Clock::now();
};

}  // namespace holdfast::journal
