#include "journal/pace.h"

#include <algorithm>
#include <thread>

namespace holdfast::journal {

void Pace::step() {
  // Longer than the longest is a machine that stood still, or a step that was no small one.
  constexpr auto shortest = std::chrono::milliseconds(5), longest = std::chrono::milliseconds(200);
  constexpr int pause = 3;
  if (!is_urgent_) return;
  auto worked = Clock::now() - begin_;
  if (worked < shortest) return;
  if (!is_urgent_()) std::this_thread::sleep_for(pause * std::min<Clock::duration>(worked, longest));
  begin_ = Clock::now();
}

}  // namespace holdfast::journal
