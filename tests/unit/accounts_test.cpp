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
  CHECK(throttle.wait_us("ada", "198.51.100.1", now) == second);  // from wherever
  CHECK(throttle.wait_us("bob", "192.0.2.1", now) == 0);
  CHECK(throttle.wait_us("ada", "192.0.2.1", now + second) == 0);
  for (int i = 0; i < 40; ++i) throttle.failed("ada", "192.0.2.1", now);
  CHECK(throttle.wait_us("ada", "192.0.2.1", now) == 15 * 60 * second);
  throttle.succeeded("ada", "192.0.2.1");
  CHECK(throttle.wait_us("ada", "198.51.100.1", now) == 0);
}

TEST_CASE("guesses at many accounts from one network are slowed down too") {
  LoginThrottle throttle;
  for (int i = 0; i < 30; ++i)
    throttle.failed("person" + std::to_string(i), "192.0.2." + std::to_string(i), 0);
  CHECK(throttle.wait_us("somebody", "192.0.2.200", 0) == second);
  CHECK(throttle.wait_us("somebody", "192.0.3.200", 0) == 0);
  CHECK(LoginThrottle::network_of("2001:db8:1:2:3::4") == LoginThrottle::network_of("2001:db8:1:2:9::1"));
  CHECK(LoginThrottle::network_of("2001:db8:1:2:3::4") != LoginThrottle::network_of("2001:db8:1:3:3::4"));
}
