#include "failover/accounts.h"

#include <catch2/catch.hpp>

using namespace holdfast::failover;

namespace {

constexpr std::int64_t second = 1'000'000;

}  // namespace

TEST_CASE("a password is known by its hash, and nobody without one gets in") {
  std::string hash = hash_password("correct horse");
  CHECK(hash.starts_with("$argon2id$"));
  CHECK(hash != hash_password("correct horse"));
  CHECK(is_password(hash, "correct horse"));
  CHECK_FALSE(is_password(hash, "correct horse "));
  CHECK_FALSE(is_password("", ""));
  CHECK_FALSE(is_password("", "nobody has this password"));
}

TEST_CASE("guesses at an account cost more and more, up to a quarter of an hour") {
  LoginThrottle throttle;
  std::int64_t now = 1000 * second;
  for (int i = 0; i < 5; ++i) {
    CHECK(throttle.wait_us("ada", "192.0.2.1", now) == 0);
    throttle.failed("ada", "192.0.2.1", now);
  }
  CHECK(throttle.wait_us("ada", "192.0.2.1", now) == second);
  CHECK(throttle.wait_us("ada", "192.0.2.200", now) == second);
  CHECK(throttle.wait_us("ada", "198.51.100.1", now) == 0);  // that may be she
  CHECK(throttle.wait_us("bob", "192.0.2.1", now) == 0);
  CHECK(throttle.wait_us("ada", "192.0.2.1", now + second) == 0);
  for (int i = 0; i < 40; ++i) throttle.failed("ada", "192.0.2.1", now);
  CHECK(throttle.wait_us("ada", "192.0.2.1", now) == 15 * 60 * second);
  throttle.succeeded("ada", "192.0.2.1", now);
  CHECK(throttle.wait_us("ada", "192.0.2.1", now) == 0);
}

TEST_CASE("guesses at one account from everywhere are slowed down, but nobody is kept out where they got in before, or for long") {
  LoginThrottle throttle;
  std::int64_t now = 1000 * second;
  throttle.succeeded("ada", "192.0.2.1", now);
  for (int i = 0; i < 100; ++i) throttle.failed("ada", "10.0." + std::to_string(i) + ".1", now);
  CHECK(throttle.wait_us("ada", "192.0.2.7", now) == 0);
  CHECK(throttle.wait_us("ada", "198.51.100.1", now) == 60 * second);
  for (int i = 0; i < 6; ++i) throttle.failed("ada", "192.0.2.9", now);  // her own network gets no free guesses for that
  CHECK(throttle.wait_us("ada", "192.0.2.7", now) > 0);
}

TEST_CASE("guesses at many accounts from one network are slowed down too") {
  LoginThrottle throttle;
  throttle.succeeded("ada", "192.0.2.1", 0 * second + 1);
  for (int i = 0; i < 30; ++i) throttle.failed("person" + std::to_string(i), "192.0.2." + std::to_string(i), second);
  CHECK(throttle.wait_us("somebody", "192.0.2.200", second) == second);
  CHECK(throttle.wait_us("somebody", "192.0.3.200", second) == 0);
  CHECK(throttle.wait_us("ada", "192.0.2.200", second) == 0);  // who got in before is not kept out by the neighbours
  CHECK(LoginThrottle::network_of("2001:db8:1:2:3::4") == LoginThrottle::network_of("2001:db8:1:2:9::1"));
  CHECK(LoginThrottle::network_of("2001:db8:1:2:3::4") != LoginThrottle::network_of("2001:db8:1:3:3::4"));
  CHECK(LoginThrottle::network_of("2001:db8::1") == LoginThrottle::network_of("2001:db8::a:b:c:d"));
  CHECK(LoginThrottle::network_of("2001:db8::1") != LoginThrottle::network_of("2001:db8:0:1::1"));
}

TEST_CASE("an office full of people who mistype now and then gets in, and what was long ago is forgotten") {
  LoginThrottle throttle;
  std::int64_t now = 1000 * second;
  for (int i = 0; i < 500; ++i) {
    std::string person = "person" + std::to_string(i);
    if (i % 2 == 0) throttle.failed(person, "192.0.2.1", now);
    REQUIRE(throttle.wait_us(person, "192.0.2.1", now) == 0);
    throttle.succeeded(person, "192.0.2.1", now);
  }
  for (int i = 0; i < 100; ++i) throttle.failed("somebody", "203.0.113.1", now);
  now += 3601 * second;
  throttle.failed("somebody", "203.0.113.1", now);
  CHECK(throttle.wait_us("somebody", "203.0.113.1", now) == 0);
}

TEST_CASE("a throttle waits no longer than it would, should the clock have been set back") {
  LoginThrottle throttle;
  constexpr std::int64_t hour = 3600LL * 1000000;
  for (int i = 0; i < 10; ++i) throttle.failed("a@example.org", "192.0.2.1", 10 * hour);
  std::int64_t wait = throttle.wait_us("a@example.org", "192.0.2.1", 10 * hour);
  REQUIRE(wait > 0);
  CHECK(throttle.wait_us("a@example.org", "192.0.2.1", 7 * hour) == wait);
}
