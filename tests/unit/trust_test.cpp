#include "failover/trust.h"

#include <catch2/catch.hpp>

using holdfast::failover::Trust;

namespace {

int believed(Trust& trust, int refusals, std::uint64_t held) {
  int count = 0;
  for (int i = 0; i < refusals; ++i) count += trust.believes_refusal(held);
  return count;
}

}  // namespace

TEST_CASE("a primary that has taken nothing yet is not believed when it refuses what is many") {
  Trust trust;
  trust.set_doubt_after(20);
  CHECK_FALSE(trust.believes_refusal(21));
  trust.took();
  CHECK(trust.believes_refusal(21));
  trust.is_away();
  CHECK(believed(trust, 19, 21) == 0);
  CHECK_FALSE(trust.takes_nothing());
  CHECK_FALSE(trust.believes_refusal(21));
  CHECK(trust.takes_nothing());
  trust.is_away();
  CHECK_FALSE(trust.takes_nothing());
}

TEST_CASE("of a few held messages every refusal is believed") {
  Trust trust;
  trust.set_doubt_after(20);
  CHECK(believed(trust, 20, 20) == 20);
}

TEST_CASE("so many in a row are believed, until it takes one") {
  Trust trust;
  trust.set_doubt_after(20);
  trust.took();
  CHECK(believed(trust, 50, 1000) == 20);
  trust.took();
  CHECK(believed(trust, 50, 1000) == 20);
  CHECK_FALSE(trust.takes_nothing());
  trust.set_doubt_after(0);
  CHECK(believed(trust, 50, 1000) == 50);
}
