#include "failover/upstream_order.h"

#include <algorithm>
#include <numeric>

namespace holdfast::failover {

std::vector<std::size_t> UpstreamOrder::order(Time now, bool is_balanced) {
  std::vector<std::size_t> indices(states_.size());
  std::iota(indices.begin(), indices.end(), std::size_t{0});
  if (is_balanced) std::rotate(indices.begin(), indices.begin() + static_cast<std::ptrdiff_t>(turn_++ % indices.size()), indices.end());
  std::stable_partition(indices.begin(), indices.end(), [&](std::size_t i) { return states_[i].avoided_until <= now; });
  return indices;
}

void UpstreamOrder::succeeded(std::size_t upstream, Time now) {
  if (!states_[upstream].broke_off) states_[upstream] = State();
  states_[upstream].last_life = now;
}

void UpstreamOrder::lives(std::size_t upstream, Time now) {
  if (states_[upstream].broke_off) states_[upstream] = State();
  states_[upstream].last_life = now;
}

void UpstreamOrder::failed(std::size_t upstream, Time now) {
  constexpr unsigned longest = 30;
  State& state = states_[upstream];
  state.last_life = Time{};
  state.broke_off = false;
  unsigned seconds = std::min(longest, 1U << std::min(state.failures, 5U));
  ++state.failures;
  state.avoided_until = now + std::chrono::seconds(seconds);
}

void UpstreamOrder::broke_off(std::size_t upstream, Time now) {
  failed(upstream, now);
  states_[upstream].broke_off = true;
}

}  // namespace holdfast::failover
