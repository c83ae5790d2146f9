#include "journal/pace.h"

#include <algorithm>
#include <cstdint>
#include <fstream>
#include <thread>
#include <utility>

namespace holdfast::journal {
namespace {

/// For how long this thread has waited for a processor, in nanoseconds; 0 where the kernel does not tell.
std::uint64_t waited() {
  std::ifstream file("/proc/thread-self/schedstat");
  std::uint64_t ran = 0, waited = 0;
  file >> ran >> waited;
  return waited;
}

}  // namespace

Pace Pace::gentle(std::function<bool()> is_urgent) {
  return Pace([is_urgent = std::move(is_urgent)] { return is_urgent() ? 0 : 3; });
}

Pace Pace::brisk() {
  return Pace([before = waited(), begin = Clock::now()]() mutable {
    std::uint64_t now = waited();
    auto in_all = std::exchange(begin, Clock::now());
    bool is_crowded = std::chrono::nanoseconds(now - std::exchange(before, now)) > (begin - in_all) / 8;
    return is_crowded ? 3 : 0;
  });
}

void Pace::step() {
  // Longer than the longest is a machine that stood still, or a step that was no small one.
  constexpr auto shortest = std::chrono::milliseconds(5), longest = std::chrono::milliseconds(200);
  if (!pause_) return;
  auto worked = Clock::now() - begin_;
  if (worked < shortest) return;
  std::this_thread::sleep_for(pause_() * std::min<Clock::duration>(worked, longest));
  begin_ = Clock::now();
}

}  // namespace holdfast::journal
