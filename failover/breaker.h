// The breaker of a route: decides from what probes and live traffic see whether the primary is there.
//
// A pure state machine with the clock handed in. Quick to trip, slow to release, and slower each time it is wrong: a primary
// that comes and goes is believed less and less. Not thread-safe.
#pragma once

#include <chrono>
#include <string>

namespace holdfast::failover {

using Time = std::chrono::steady_clock::time_point;
using Span = std::chrono::milliseconds;

struct BreakerOptions {
  unsigned trip_failures = 3;    ///< trips after so many failures in a row; 0: only by time
  Span trip_after{0};            ///< trips when failing for so long, over two failures or more; 0: only by number
  Span release_after{10'000};    ///< health without a failure for so long releases it
  unsigned longest_release = 4;  ///< times release_after: how far it grows, doubling with each relapse
  Span relapse_within{600'000};  ///< tripping again so soon after a release is a relapse
  unsigned flood_count = 20;     ///< falters within flood_window that trip it, when nothing else comes
  Span flood_window{10'000};
  bool operator==(const BreakerOptions&) const = default;
};

class Breaker {
 public:
  explicit Breaker(BreakerOptions options) : options_(options) {}
  /// Takes over changed options; what was seen stays.
  void set_options(BreakerOptions options) { options_ = options; }

  /// The primary answered well: a probe, or mail that it took.
  void succeeded(Time now);
  /// It could not be reached: it refused the connection, did not greet in time, said 421, or spoke nonsense.
  void failed(Time now, const std::string& why);
  /// It answered with a system failure (4.3.x), or went away in the middle of something, which may be one client's or one message's
  /// doing. Many of these alone are a failure too.
  void faltered(Time now, const std::string& why);
  /// A client was kept waiting since then and no address answered: trips at once, unless there was a success since.
  void gave_up(Time now, Time since, const std::string& why);
  /// It answers, and takes nothing of what is its own: trips at once.
  void is_not_itself(Time now, const std::string& why) { trip(now, why); }
  /// Starts tripped, as it was before a restart.
  void start_open(const std::string& why);

  bool is_open() const { return is_open_; }
  /// Why it tripped, or what fails now; empty when all is well.
  const std::string& reason() const { return reason_; }
  /// How long health must last now before it is believed.
  Span current_release() const { return release_ == Span::zero() ? options_.release_after : release_; }

 private:
  void trip(Time now, const std::string& why);

  BreakerOptions options_;
  bool is_open_ = false;
  std::string reason_;
  unsigned failures_ = 0;  ///< in a row
  Time failing_since_{}, last_success_{}, healthy_since_{}, released_at_{}, flood_since_{};
  bool is_healthy_ = false;  ///< while open: successes only since healthy_since_
  bool was_released_ = false;
  unsigned falters_ = 0;
  Span release_{0};
};

}  // namespace holdfast::failover
