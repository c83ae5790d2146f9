#include "failover/primary_habits.h"

#include <catch2/catch.hpp>

using namespace holdfast::failover;
using namespace std::chrono_literals;

TEST_CASE("how many greetings an address takes on a connection is known for an hour, and for that address alone") {
  PrimaryHabits habits;
  PrimaryHabits::Time now{};
  CHECK(habits.takes_another_greeting("a:25", 1000, now));
  habits.takes_greetings("a:25", 3, now);
  CHECK(habits.takes_another_greeting("a:25", 2, now));
  CHECK_FALSE(habits.takes_another_greeting("a:25", 3, now));
  CHECK_FALSE(habits.takes_another_greeting("a:25", 3, now + 59min));
  CHECK(habits.takes_another_greeting("a:25", 3, now + 60min));
  CHECK(habits.takes_another_greeting("b:25", 3, now));
}

TEST_CASE("patience with a further greeting follows how long the first one takes") {
  PrimaryHabits habits;
  CHECK(habits.patience_with_greeting("a:25") == 500ms);
  habits.greeted_after("a:25", 90ms);
  CHECK(habits.patience_with_greeting("a:25") == 500ms);
  habits.greeted_after("a:25", 700ms);
  CHECK(habits.patience_with_greeting("a:25") == 2800ms);
  CHECK(habits.patience_with_greeting("b:25") == 500ms);
  habits.greeted_after("a:25", 5ms);
  CHECK(habits.patience_with_greeting("a:25") == 500ms);
}

TEST_CASE("whether envelopes may follow a message at once is known by address") {
  PrimaryHabits habits;
  CHECK(habits.takes_followers("a:25"));
  habits.takes_no_followers("a:25");
  CHECK_FALSE(habits.takes_followers("a:25"));
  CHECK(habits.takes_followers("b:25"));
  CHECK(habits.takes_another_greeting("a:25", 1000, {}));
}
