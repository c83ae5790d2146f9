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
  /// Somebody waits for the job: pauses so only where others want the processors.
  static Pace brisk();

  /// To be called often. Pauses once there was work of some milliseconds.
  void step();

 private:
  using Clock = std::chrono::steady_clock;
  using Pause = std::function<int(Clock::duration worked)>;  ///< how many times as long as that
  explicit Pace(Pause pause) : pause_(std::move(pause)) {}

  Pause pause_;
  Clock::time_point begin_ = Clock::now();
};

}  // namespace holdfast::journal
