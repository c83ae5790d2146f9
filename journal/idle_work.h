// Work beside mail that somebody waits for: it takes what the processors have left, and ends on a machine that never rests too.
#pragma once

#include <chrono>

namespace holdfast::journal {

/// While it exists, the thread that made it works when a processor has nothing else to do, and leaves it at once when it has (SCHED_IDLE).
/// Niceness alone first uses up its turn, for which mail waits. Where the thread gets next to nothing in that way, it takes turns again for
/// a while. Needs the right to come back from being idle (CAP_SYS_NICE, or RLIMIT_NICE as sched(7) has it); without it nothing changes.
class IdleWork {
 public:
  IdleWork();
  ~IdleWork();
  IdleWork(const IdleWork&) = delete;
  IdleWork& operator=(const IdleWork&) = delete;

  /// To be called often.
  void step();

 private:
  using Clock = std::chrono::steady_clock;
  void be_idle(bool is_idle);

  bool may_come_back_;
  bool is_idle_ = false;
  std::chrono::nanoseconds worked_{0};  ///< processor time, when it was last looked at
  Clock::time_point looked_;
};

}  // namespace holdfast::journal
