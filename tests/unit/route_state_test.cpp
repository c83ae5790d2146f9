#include "failover/route_state.h"

#include <catch2/catch.hpp>

using namespace holdfast::failover;

TEST_CASE("every combination of mode, flag, breaker and backlog gives the state that it should") {
  for (Mode mode : {Mode::automatic, Mode::hold, Mode::pass})
    for (bool has_flag : {false, true})
      for (bool is_open : {false, true})
        for (bool has_backlog : {false, true}) {
          RouteState route;
          route.set_backlog(!has_backlog, 1);
          route.set_mode(Mode::hold, "user a", "begin", 2);  // out of hold, so that drain can be told from pass
          route.set_flag(has_flag, "flag", 3);
          route.set_breaker(is_open, "gone", 4);
          route.set_mode(mode, "user b", "end", 5);
          bool must_hold = has_flag || mode == Mode::hold || (mode == Mode::automatic && is_open);
          State expected = must_hold ? State::hold : has_backlog ? State::drain : State::pass;
          INFO(to_string(mode) << has_flag << is_open << has_backlog);
          CHECK(route.status().state == expected);
        }
}

TEST_CASE("a change has an author, a reason and a time, and no change has none") {
  RouteState route;
  CHECK(route.set_breaker(true, "it refuses the connection", 10));
  CHECK(route.status().by == "breaker");
  CHECK(route.status().reason == "it refuses the connection");
  CHECK(route.status().since_us == 10);
  CHECK_FALSE(route.set_breaker(true, "still", 20));
  CHECK(route.status().since_us == 10);
  CHECK(route.set_mode(Mode::hold, "user alice", "drill", 30));
  CHECK_FALSE(route.set_breaker(false, "", 40));
  CHECK(route.status().by == "user alice");
  CHECK(route.set_mode(Mode::automatic, "user alice", "over", 50));
  CHECK(route.status().state == State::pass);
}

TEST_CASE("the backlog's end ends the drain; mail that is held later does not begin one") {
  RouteState route;
  route.set_breaker(true, "gone", 1);
  route.set_backlog(false, 2);
  CHECK(route.set_breaker(false, "", 3));
  CHECK(route.status().state == State::drain);
  CHECK(route.set_backlog(true, 4));
  CHECK(route.status().state == State::pass);
  CHECK_FALSE(route.set_backlog(false, 5));
  CHECK(route.status().state == State::pass);
}
