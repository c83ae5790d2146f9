// In which order a route's upstreams are tried: as configured, or each in its turn; but those that failed lately come last.
//
// A decision only, with the clock handed in. Not thread-safe; one a route and loop.
#pragma once

#include <chrono>
#include <cstddef>
#include <vector>

namespace holdfast::failover {

class UpstreamOrder {
 public:
  using Time = std::chrono::steady_clock::time_point;
  explicit UpstreamOrder(std::size_t upstreams) : states_(upstreams) {}

  /// Indices of all upstreams, the first to be tried first. When balanced, each call begins with another.
  std::vector<std::size_t> order(Time now, bool is_balanced);

  /// It greeted us. One that could not be reached is as good as the others again; one that broke off is not yet: it may greet each time.
  void succeeded(std::size_t upstream, Time now);
  /// It answered for a whole message: it lives, whatever it keeps others waiting for.
  void lives(std::size_t upstream, Time now);
  /// It could not be reached, or did not greet. An upstream is put last for 1 s after its first failure, then for twice as long with each
  /// further one, at most 30 s.
  void failed(std::size_t upstream, Time now);
  /// It greeted us, and failed later.
  void broke_off(std::size_t upstream, Time now);

  struct State {
    unsigned failures = 0;
    Time avoided_until{};
    bool broke_off = false;  ///< and has answered for no message since
    Time last_life{};        ///< since its last failure; long ago when it has shown none
  };
  const std::vector<State>& states() const { return states_; }

 private:
  std::vector<State> states_;
  std::size_t turn_ = 0;
};

}  // namespace holdfast::failover
