#include "failover/trust.h"

namespace holdfast::failover {

void Trust::took() {
  has_taken_some_ = true;
  refused_in_a_row_ = 0;
}

void Trust::is_away() {
  has_taken_some_ = false;
  refused_in_a_row_ = 0;
}

bool Trust::believes_refusal(std::uint64_t held) {
  ++refused_in_a_row_;
  if (doubt_after_ == 0) return true;
  return refused_in_a_row_ <= doubt_after_ && (has_taken_some_ || held <= doubt_after_);
}

}  // namespace holdfast::failover
