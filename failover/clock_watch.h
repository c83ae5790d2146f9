// Whether the machine's clock can be trusted with what cannot be undone: letting held mail expire, taking old segments away, forgetting.
// A clock that has jumped may jump back, as when a machine starts with a wrong one and gets the time later.
//
// A decision only, with the clocks handed in. Not thread-safe.
#pragma once

#include <chrono>
#include <cstdint>

namespace holdfast::failover {

class ClockWatch {
 public:
  using Steady = std::chrono::steady_clock;

  /// To be called often.
  /// @param now_us  what the machine's clock says: microseconds since 1970
  /// @param steady  what the clock says that never jumps
  void look(std::int64_t now_us, Steady::time_point steady);

  /// Whether what is due after so long may be done, as of the last look: the clock has gone evenly for an hour, or for a hundredth of that
  /// time, if that is less.
  bool is_trusted_after(Steady::duration term) const;

 private:
  std::int64_t offset_us_ = 0;  ///< of the machine's clock to the steady one
  Steady::time_point looked_{}, even_since_{};
};

}  // namespace holdfast::failover
