#include "failover/sending_pace.h"

#include <catch2/catch.hpp>

using holdfast::failover::SendingPace;
using holdfast::failover::Time;
using namespace std::chrono_literals;

TEST_CASE("what a person sent counts for an hour, message by message, and for nobody else") {
  SendingPace pace;
  Time now = Time() + 1000h;
  CHECK(pace.recipients_of("ada@example.org", now) == 0);
  pace.sent("ada@example.org", 3, now);
  pace.sent("ada@example.org", 4, now + 30min);
  CHECK(pace.recipients_of("ada@example.org", now + 59min) == 7);
  CHECK(pace.recipients_of("ada@example.org", now + 60min) == 4);
  CHECK(pace.recipients_of("ada@example.org", now + 90min) == 0);
  CHECK(pace.recipients_of("bob@example.org", now) == 0);
}

TEST_CASE("what was not taken after all does not count") {
  SendingPace pace;
  Time now = Time() + 1000h;
  pace.sent("ada@example.org", 3, now);
  pace.sent("ada@example.org", 4, now);
  pace.not_sent("ada@example.org", 3);
  CHECK(pace.recipients_of("ada@example.org", now) == 4);
  pace.not_sent("ada@example.org", 3);
  pace.not_sent("bob@example.org", 3);
  CHECK(pace.recipients_of("ada@example.org", now) == 4);
  CHECK(pace.recipients_of("bob@example.org", now) == 0);
}

TEST_CASE("who has sent nothing for an hour takes no memory") {
  SendingPace pace;
  Time now = Time() + 1000h;
  for (int i = 0; i < 100; ++i) pace.sent("person" + std::to_string(i) + "@example.org", 1, now);
  CHECK(pace.people() == 100);
  pace.sent("ada@example.org", 1, now + 2h);
  CHECK(pace.people() == 1);
}
