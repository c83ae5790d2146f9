#include "failover/breaker.h"

#include <catch2/catch.hpp>

using namespace holdfast::failover;
using namespace std::chrono_literals;

namespace {

BreakerOptions options() {
  BreakerOptions options;
  options.trip_failures = 3;
  options.release_after = 10s;
  options.longest_release = 4;
  options.relapse_within = 600s;
  return options;
}

struct Clocked {
  Breaker breaker{options()};
  Time now{1000s};

  void fail(int times) {
    for (int i = 0; i < times; ++i) breaker.failed(now += 100ms, "refused");
  }
  void succeed_for(Span span) {
    for (Time end = now + span; now < end; now += 500ms) breaker.succeeded(now);
    breaker.succeeded(now);
  }
};

}  // namespace

TEST_CASE("a breaker trips after so many failures in a row, and a success starts the count anew") {
  Clocked clocked;
  clocked.fail(2);
  CHECK_FALSE(clocked.breaker.is_open());
  CHECK(clocked.breaker.reason() == "refused");
  clocked.breaker.succeeded(clocked.now);
  CHECK(clocked.breaker.reason().empty());
  clocked.fail(2);
  CHECK_FALSE(clocked.breaker.is_open());
  clocked.fail(1);
  CHECK(clocked.breaker.is_open());
}

TEST_CASE("a breaker may trip by time instead, over two failures or more") {
  BreakerOptions by_time = options();
  by_time.trip_failures = 0;
  by_time.trip_after = 500ms;
  Breaker breaker(by_time);
  Time now{1000s};
  breaker.failed(now, "x");
  breaker.failed(now + 499ms, "x");
  CHECK_FALSE(breaker.is_open());
  breaker.failed(now + 500ms, "x");
  CHECK(breaker.is_open());
}

TEST_CASE("a breaker releases only after unbroken health") {
  Clocked clocked;
  clocked.fail(3);
  clocked.succeed_for(9s);
  CHECK(clocked.breaker.is_open());
  clocked.fail(1);
  clocked.succeed_for(9s);
  CHECK(clocked.breaker.is_open());
  clocked.succeed_for(1500ms);
  CHECK_FALSE(clocked.breaker.is_open());
}

TEST_CASE("a breaker may start open, and releases like another") {
  Clocked clocked;
  clocked.breaker.start_open("it was down at the last stop");
  CHECK(clocked.breaker.is_open());
  CHECK(clocked.breaker.reason() == "it was down at the last stop");
  clocked.succeed_for(9s);
  CHECK(clocked.breaker.is_open());
  clocked.succeed_for(1500ms);
  CHECK_FALSE(clocked.breaker.is_open());
  CHECK(clocked.breaker.reason().empty());
}

TEST_CASE("each relapse makes the release slower, up to a limit; a long good time forgives") {
  Clocked clocked;
  clocked.fail(3);
  for (Span expected : {Span(10s), Span(20s), Span(40s), Span(40s)}) {
    CHECK(clocked.breaker.current_release() == expected);
    clocked.succeed_for(expected + 500ms);
    REQUIRE_FALSE(clocked.breaker.is_open());
    clocked.fail(3);
    REQUIRE(clocked.breaker.is_open());
  }
  clocked.succeed_for(61s);
  REQUIRE_FALSE(clocked.breaker.is_open());
  clocked.now += 601s;
  clocked.fail(3);
  CHECK(clocked.breaker.current_release() == Span(10s));
}

TEST_CASE("a flood of system failures trips the breaker, a few among successes do not") {
  Clocked clocked;
  for (int i = 0; i < 100; ++i) {
    clocked.breaker.faltered(clocked.now += 10ms, "452 4.3.1 full");
    if (i % 10 == 9) clocked.breaker.succeeded(clocked.now);
  }
  CHECK_FALSE(clocked.breaker.is_open());
  for (int i = 0; i < 20; ++i) clocked.breaker.faltered(clocked.now += 10ms, "452 4.3.1 full");
  CHECK(clocked.breaker.is_open());
  CHECK(clocked.breaker.reason() == "452 4.3.1 full");

  Clocked slow;
  for (int i = 0; i < 100; ++i) slow.breaker.faltered(slow.now += 1s, "452 4.3.1 full");
  CHECK_FALSE(slow.breaker.is_open());
}

TEST_CASE("a client that waited in vain trips the breaker at once, unless others got through meanwhile") {
  Clocked clocked;
  Time since = clocked.now;
  clocked.breaker.succeeded(clocked.now += 500ms);
  clocked.breaker.gave_up(clocked.now += 500ms, since, "no answer");
  CHECK_FALSE(clocked.breaker.is_open());
  clocked.breaker.gave_up(clocked.now += 500ms, clocked.now - 400ms, "no answer");
  CHECK(clocked.breaker.is_open());
}
