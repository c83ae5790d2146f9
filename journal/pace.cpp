#include "journal/pace.h"

#include <algorithm>
#include <cstdint>
#include <fstream>
#include <thread>
#include <utility>

namespace holdfast::journal {
namespace {

constexpr int pause = 3;

/// For how long this thread has waited for a processor; nothing where the kernel does not tell.
std::chrono::nanoseconds time_waited() {
  std::ifstream file("/proc/thread-self/schedstat");
  std::int64_t ran_ns = 0, waited_ns = 0;
  file >> ran_ns >> waited_ns;
  return std::chrono::nanoseconds(waited_ns);
}

}  // namespace

Pace Pace::gentle(std::function<bool()> is_urgent) {
  return Pace([is_urgent = std::move(is_urgent)](Clock::duration) { return is_urgent() ? 0 : pause; });
}

Pace Pace::brisk() {
  return Pace([before = time_waited()](Clock::duration worked) mutable {
    auto now = time_waited();
    bool is_crowded = now - std::exchange(before, now) > worked / 8;
    return is_crowded ? pause : 0;
  });
}

void Pace::step() {
  // Longer than the longest is a machine that stood still, or a step that was no small one.
  constexpr auto shortest = std::chrono::milliseconds(5), longest = std::chrono::milliseconds(200);
  if (!pause_) return;
  auto worked = Clock::now() - begin_;
  if (worked < shortest) return;
  std::this_thread::sleep_for(pause_(worked) * std::min<Clock::duration>(worked, longest));
  begin_ = Clock::now();
}

}  // namespace holdfast::journal
