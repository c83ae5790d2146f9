#include "failover/hold_queue.h"

#include <catch2/catch.hpp>
#include <random>

using namespace holdfast::failover;
using namespace std::chrono_literals;

namespace {

RetryOptions options() { return {Span(1s), Span(8s)}; }

}  // namespace

TEST_CASE("entries come out oldest first, and the same recipient's one at a time") {
  HoldQueue queue(options());
  Time now{100s};
  queue.add(3, 0, {{0, 7}});
  queue.add(1, 0, {{0, 7}});
  queue.add(2, 0, {{0, 8}});
  auto first = queue.next(now), second = queue.next(now);
  REQUIRE(first);
  REQUIRE(second);
  CHECK(first->id == 1);
  CHECK(second->id == 2);
  CHECK_FALSE(queue.next(now));
  queue.remove(1, 0);
  CHECK(queue.next(now)->id == 3);
}

TEST_CASE("what comes behind an entry in flight can be made ready, and goes only in its turn") {
  HoldQueue queue(options());
  Time now{100s};
  queue.add(1, 0, {{0, 7}});
  queue.add(2, 0, {{0, 7}, {1, 8}});
  queue.add(3, 0, {{0, 8}});
  auto ahead = queue.next(now);
  REQUIRE(ahead);
  REQUIRE(ahead->id == 1);
  auto behind = queue.next_behind(*ahead, now);
  REQUIRE(behind);
  CHECK(behind->id == 2);
  CHECK(behind->recipients == std::vector<std::uint32_t>{0, 1});
  CHECK_FALSE(queue.next(now));  // 2 is in flight, 3 is behind it
  CHECK_FALSE(queue.is_first(*behind));
  SECTION("delivered: it is first") {
    queue.remove(1, 0);
    CHECK(queue.is_first(*behind));
    auto third = queue.next_behind(*behind, now);
    CHECK_FALSE(third);  // behind 2 for lane 7 there is nothing
  }
  SECTION("deferred: it waits again, and so does what was behind it") {
    queue.defer(1, 0, "450 later", now);
    CHECK_FALSE(queue.is_first(*behind));
    queue.put_back(*behind);
    auto other = queue.next(now);
    REQUIRE(other);  // its second recipient has nothing before it
    CHECK(other->id == 2);
    CHECK(other->recipients == std::vector<std::uint32_t>{1});
    CHECK(queue.next(now + 1s)->id == 1);
  }
}

TEST_CASE("of what comes behind, only recipients are made ready that are not under way, and may be tried now") {
  HoldQueue queue(options());
  Time now{100s};
  queue.add(1, 0, {{0, 7}});
  queue.add(2, 0, {{0, 7}, {1, 8}, {2, 9}});
  auto ahead = queue.next(now);
  auto meanwhile = queue.next(now);
  REQUIRE(meanwhile);
  CHECK(meanwhile->id == 2);
  CHECK(meanwhile->recipients == std::vector<std::uint32_t>{1, 2});
  queue.defer(2, 2, "450 later", now);
  auto behind = queue.next_behind(*ahead, now);
  REQUIRE(behind);
  CHECK(behind->recipients == std::vector<std::uint32_t>{0});
  CHECK_FALSE(queue.next_behind(*ahead, now));
  CHECK(queue.next_behind(*ahead, now + 1s)->recipients == std::vector<std::uint32_t>{2});  // it has become due
}

TEST_CASE("what is dropped while it is under way, or before, is nowhere any more") {
  HoldQueue queue(options());
  Time now{100s};
  queue.add(1, 0, {{0, 7}});
  queue.add(2, 0, {{0, 8}, {1, 9}});
  queue.remove(1, 0);
  auto delivery = queue.next(now);
  REQUIRE(delivery);
  CHECK(delivery->id == 2);
  queue.remove(2, 0);
  CHECK_FALSE(queue.is_first(*delivery));
  queue.interrupted(*delivery, "lost", now);
  CHECK(queue.next(now)->recipients == std::vector<std::uint32_t>{1});
  queue.remove(2, 1);
  CHECK_FALSE(queue.is_first(*delivery));
  queue.put_back(*delivery);
  CHECK_FALSE(queue.next_behind(*delivery, now));
  CHECK_FALSE(queue.next(now));
  CHECK(queue.recipients() == 0);
}

TEST_CASE("a deferred recipient waits, longer each time, and holds back only its own later mail") {
  HoldQueue queue(options());
  Time now{100s};
  queue.add(1, 0, {{0, 7}, {1, 8}});
  queue.add(2, 0, {{0, 7}, {1, 8}});
  auto delivery = queue.next(now);
  CHECK(delivery->recipients == std::vector<std::uint32_t>{0, 1});
  queue.defer(1, 0, "450 later", now);
  queue.remove(1, 1);
  delivery = queue.next(now);
  REQUIRE(delivery);
  CHECK(delivery->id == 2);
  CHECK(delivery->recipients == std::vector<std::uint32_t>{1});
  queue.remove(2, 1);
  for (Span wait : {Span(1s), Span(2s), Span(4s), Span(8s), Span(8s)}) {
    CHECK_FALSE(queue.next(now + wait - 1ms));
    now += wait;
    delivery = queue.next(now);
    REQUIRE(delivery);
    CHECK(delivery->id == 1);
    queue.defer(1, 0, "450 later", now);
  }
  CHECK(queue.waiting(1)[0].attempts == 6);
  queue.retry_now(1);
  CHECK(queue.next(now)->id == 1);
  queue.remove(1, 0);
  CHECK(queue.next(now)->id == 2);
  queue.remove(2, 0);
  CHECK(queue.size() == 0);
}

TEST_CASE("entries that wait behind a deferred recipient, and for nobody else, are counted") {
  HoldQueue queue(options());
  Time now{100s};
  queue.add(1, 0, {{0, 7}});
  queue.add(2, 0, {{0, 7}, {1, 7}});
  queue.add(3, 0, {{0, 7}, {1, 8}});
  queue.add(4, 0, {{0, 8}});
  CHECK(queue.recipients() == 6);
  CHECK(queue.blocked(now) == 0);
  REQUIRE(queue.next(now)->id == 1);
  queue.defer(1, 0, "452", now);
  CHECK(queue.blocked(now) == 2);
  CHECK(queue.blocked(now + 1s) == 0);
  REQUIRE(queue.next(now)->id == 3);
  queue.remove(3, 1);
  CHECK(queue.blocked(now) == 3);
  queue.retry_now(1);
  CHECK(queue.blocked(now) == 0);
  queue.remove(1, 0);
  CHECK(queue.recipients() == 4);
}

TEST_CASE("a delivery that did not happen is put back, and taken again") {
  HoldQueue queue(options());
  Time now{100s};
  queue.add(1, 0, {{0, 7}});
  auto delivery = queue.next(now);
  CHECK_FALSE(queue.next(now));
  CHECK(queue.is_in_flight(1));
  queue.put_back(*delivery);
  CHECK(queue.next(now)->id == 1);
}

TEST_CASE("a delivery that is interrupted again and again lets others go first") {
  HoldQueue queue(options());
  Time now{100s};
  queue.add(1, 0, {{0, 7}});
  queue.add(2, 0, {{0, 7}});
  queue.add(3, 0, {{0, 8}});
  auto first = queue.next(now);
  REQUIRE(first->id == 1);
  queue.interrupted(*first, "it went away", now);
  first = queue.next(now);
  REQUIRE(first->id == 1);
  queue.interrupted(*first, "it went away", now);
  CHECK(queue.next(now)->id == 3);
  CHECK_FALSE(queue.next(now));
  CHECK(queue.waiting(1)[0].reply == "it went away");
  CHECK(queue.next_due() == now + 1s);
  first = queue.next(now + 1s);
  REQUIRE(first->id == 1);
  queue.interrupted(*first, "it went away", now + 1s);
  CHECK_FALSE(queue.next(now + 2s));
  CHECK(queue.next(now + 3s)->id == 1);
}

TEST_CASE("whatever happens in whatever order, each recipient's mail keeps its order and all of it is delivered once") {
  std::mt19937 noise(7);
  for (int round = 0; round < 50; ++round) {
    HoldQueue queue(options());
    Time now{100s};
    std::map<std::uint64_t, std::vector<EntryId>> expected, got;
    std::vector<HoldQueue::Delivery> flying;
    std::map<std::pair<EntryId, std::uint32_t>, std::uint64_t> lane_of;
    for (EntryId id = 1; id <= 40; ++id) {
      std::vector<HoldQueue::Recipient> recipients;
      std::set<std::uint64_t> lanes;
      for (std::uint32_t i = 0, count = 1 + noise() % 4; i < count; ++i) {
        std::uint64_t lane = noise() % 5;
        recipients.push_back({i, lane});
        lane_of[{id, i}] = lane;
        lanes.insert(lane);
      }
      for (std::uint64_t lane : lanes) expected[lane].push_back(id);
      queue.add(id, 0, recipients);
    }
    for (int step = 0; step < 100000 && queue.size() > 0; ++step) {
      now += std::chrono::milliseconds(noise() % 500);
      if (auto next = queue.next(now)) flying.push_back(*next);
      if (flying.empty() || noise() % 3 == 0) continue;
      std::size_t which = noise() % flying.size();
      HoldQueue::Delivery landing = flying[which];
      flying.erase(flying.begin() + static_cast<long>(which));
      if (noise() % 5 == 0) {
        queue.put_back(landing);
        continue;
      }
      for (std::uint32_t one : landing.recipients) {
        if (noise() % 4 == 0) {
          queue.defer(landing.id, one, "450", now);
          continue;
        }
        auto& lane = got[lane_of[{landing.id, one}]];
        if (lane.empty() || lane.back() != landing.id) lane.push_back(landing.id);
        queue.remove(landing.id, one);
      }
    }
    CHECK(queue.size() == 0);
    CHECK(got == expected);
  }
}
