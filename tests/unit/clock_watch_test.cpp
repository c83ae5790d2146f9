#include "failover/clock_watch.h"

#include <catch2/catch.hpp>

using namespace holdfast::failover;
using namespace std::chrono_literals;

TEST_CASE("the clock is trusted once it has gone evenly: for an hour, or a hundredth of what is at stake") {
  ClockWatch watch;
  ClockWatch::Steady::time_point steady{100s};
  std::int64_t now_us = 1'700'000'000'000'000;
  auto pass = [&](std::chrono::microseconds span) {
    steady += span;
    now_us += span.count();
    watch.look(now_us, steady);
  };
  CHECK_FALSE(watch.is_trusted_after(1s));
  pass(0s);
  CHECK_FALSE(watch.is_trusted_after(0s));
  pass(30ms);
  CHECK(watch.is_trusted_after(2s));
  CHECK_FALSE(watch.is_trusted_after(24h));
  pass(59min);
  CHECK_FALSE(watch.is_trusted_after(24h * 365));
  pass(2min);
  CHECK(watch.is_trusted_after(24h * 365));
  // It is put right by a little: no jump.
  now_us += 20'000'000;
  pass(1s);
  CHECK(watch.is_trusted_after(24h * 365));
  // It jumps, and back.
  for (std::int64_t jump : {365LL * 86'400'000'000, -365LL * 86'400'000'000}) {
    now_us += jump;
    pass(1s);
    CHECK_FALSE(watch.is_trusted_after(24h * 365));
    pass(50min);
    CHECK_FALSE(watch.is_trusted_after(24h * 365));
  }
  pass(11min);
  CHECK(watch.is_trusted_after(24h * 365));
}
