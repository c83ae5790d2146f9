#include "failover/upstream_order.h"

#include <catch2/catch.hpp>

using namespace holdfast::failover;
using namespace std::chrono_literals;

TEST_CASE("upstreams are tried as configured, those that failed lately last") {
  UpstreamOrder order(3);
  UpstreamOrder::Time now{};
  CHECK(order.order(now, false) == std::vector<std::size_t>{0, 1, 2});
  order.failed(0, now);
  CHECK(order.order(now, false) == std::vector<std::size_t>{1, 2, 0});
  CHECK(order.order(now + 1s, false) == std::vector<std::size_t>{0, 1, 2});
  order.succeeded(0, now + 2s);
  CHECK(order.states()[0].last_life == now + 2s);
  order.lives(0, now + 3s);
  CHECK(order.states()[0].last_life == now + 3s);
  order.failed(0, now + 4s);
  CHECK(order.states()[0].last_life == UpstreamOrder::Time{});
}

TEST_CASE("an upstream that keeps failing is avoided for longer, up to 30 seconds") {
  UpstreamOrder order(2);
  UpstreamOrder::Time now{};
  for (int i = 0; i < 20; ++i) order.failed(0, now);
  CHECK(order.order(now + 29s, false).front() == 1);
  CHECK(order.order(now + 30s, false).front() == 0);
}

TEST_CASE("an upstream that greets and then breaks off is avoided although it greets; what it answers for a message ends that") {
  UpstreamOrder order(2);
  UpstreamOrder::Time now{};
  order.broke_off(0, now);
  order.succeeded(0, now);
  CHECK(order.states()[0].last_life == now);
  CHECK(order.order(now, false).front() == 1);
  CHECK(order.order(now + 1s, false).front() == 0);
  order.broke_off(0, now + 1s);
  CHECK(order.order(now + 2s, false).front() == 1);
  CHECK(order.order(now + 3s, false).front() == 0);
  order.lives(0, now + 1s);
  CHECK(order.order(now + 1s, false).front() == 0);
  // One that went away and could then not be reached has been started again when it greets.
  order.broke_off(0, now + 1s);
  order.failed(0, now + 1s);
  order.lives(0, now + 1s);
  CHECK(order.order(now + 1s, false).front() == 1);
  order.succeeded(0, now + 1s);
  CHECK(order.order(now + 1s, false).front() == 0);
}

TEST_CASE("balanced, each has its turn, and those that failed lately wait for theirs") {
  UpstreamOrder order(3);
  UpstreamOrder::Time now{};
  CHECK(order.order(now, true) == std::vector<std::size_t>{0, 1, 2});
  CHECK(order.order(now, true) == std::vector<std::size_t>{1, 2, 0});
  CHECK(order.order(now, true) == std::vector<std::size_t>{2, 0, 1});
  order.failed(1, now);
  CHECK(order.order(now, true) == std::vector<std::size_t>{0, 2, 1});
  CHECK(order.order(now, true) == std::vector<std::size_t>{2, 0, 1});
  CHECK(order.order(now + 1s, true) == std::vector<std::size_t>{2, 0, 1});
  CHECK(order.order(now + 1s, true) == std::vector<std::size_t>{0, 1, 2});
}
