#include "proxy/config.h"

#include <catch2/catch.hpp>

#include "proxy/config_changes.h"

using namespace holdfast;
using namespace holdfast::proxy;

namespace {

const std::string smallest = R"(listeners:
  - address: 127.0.0.1:2525
routes:
  - name: primary
    domains: ["*"]
    upstreams: ["127.0.0.1:2526"]
journal:
  path: /var/lib/holdfast
)";

std::string error_of(const std::string& yaml) {
  Result<Config> config = parse_config(yaml, "holdfast.yaml");
  return config ? "" : config.error().message;
}

std::string replaced(std::string text, const std::string& what, const std::string& with) { return text.replace(text.find(what), what.size(), with); }

}  // namespace

TEST_CASE("the smallest configuration is enough") {
  Result<Config> config = parse_config(smallest, "holdfast.yaml");
  REQUIRE(config);
  CHECK(config->journal.key.file == "/var/lib/holdfast/master.key");
  CHECK(config->limits.timeouts.data_end == std::chrono::minutes(10));
  CHECK(config->routes[0].upstreams[0].port == 2526);
}

TEST_CASE("errors name the line, the key and the remedy") {
  CHECK(error_of(replaced(smallest, "127.0.0.1:2526", "10.0.0.5")) ==
        "holdfast.yaml:6: routes[0].upstreams[0]: \"10.0.0.5\" has no port; write \"10.0.0.5:25\"");
  CHECK(error_of(replaced(smallest, "127.0.0.1:2526", "127.0.0.1:2525")).find("is a listener of Holdfast's own; name the primary") !=
        std::string::npos);
  CHECK(error_of(smallest + "surprise: 1\n").starts_with("holdfast.yaml:9: surprise: there is no such key; known here: "));
  CHECK(error_of(smallest + "limits:\n  message_size: 50\n").starts_with("holdfast.yaml:10: limits.message_size: \"50\" is no size"));
  CHECK(error_of(smallest + "shutdown_grace: soon\n").starts_with("holdfast.yaml:9: shutdown_grace: \"soon\" is no duration"));
  CHECK(error_of(replaced(smallest, "path: /var/lib/holdfast", "order: before")) == "holdfast.yaml:8: journal: journal.path is missing");
  CHECK(
      error_of(replaced(smallest, "    domains", "    tls: maybe\n    domains")).find("\"maybe\" is none of: off, opportunistic, required, verify") !=
      std::string::npos);
  CHECK(error_of("a: [").starts_with("holdfast.yaml:"));
  CHECK(error_of("").find("there is no configuration in it") != std::string::npos);
  CHECK(error_of(replaced(smallest, "2525", "2525\n    tls: starttls")).find("names no certificate") != std::string::npos);
}

TEST_CASE("what would do harm is refused: no pauses, names that nothing can be found by, keys that are there twice") {
  for (const char* key : {"probe_interval", "retry_min", "retry_max", "max_hold", "trip_after"})
    CHECK(error_of(smallest + "failover:\n  " + key + ": 0s\n") == std::string("holdfast.yaml:10: failover.") + key + ": must be at least 10ms");
  CHECK(error_of(smallest + "failover:\n  takeover_after: 0s\n") == "");
  CHECK(error_of(smallest + "limits:\n  timeouts:\n    connect: 0s\n") == "holdfast.yaml:11: limits.timeouts.connect: must be at least 10ms");
  CHECK(error_of(replaced(smallest, "name: primary", "name: " + std::string(101, 'x'))) ==
        "holdfast.yaml:4: routes[0].name: must have at most 100 characters");
  for (const char* domain : {"*.example.org", "user@example.org", "example.org, example.net"})
    CHECK(error_of(replaced(smallest, "\"*\"", std::string("'") + domain + "'")).find("is no domain; write example.org") != std::string::npos);
  CHECK(error_of(smallest + "hostname: mx example\n") == "holdfast.yaml:9: hostname: \"mx example\" is no host name; write mx.example.org");
  CHECK(error_of(smallest + "hostname: '[192.0.2.1]'\n") == "");
  CHECK(error_of(smallest + "journal:\n  path: /elsewhere\n") == "holdfast.yaml:9: journal: this key is here twice");
  CHECK(error_of(smallest + "egress:\n  upstreams: [\"a:465\"]\n  tls: verify\n  implicit_tls: true\n") == "");
  CHECK(error_of(smallest + "egress:\n  upstreams: [\"a:465\"]\n  implicit_tls: true\n") ==
        "holdfast.yaml:11: egress.implicit_tls: there is no going back from TLS at the first byte: set egress.tls to required or verify");
  CHECK(error_of(smallest + "limits:\n  errors: 3\n  errors: 4\n") == "holdfast.yaml:11: limits.errors: this key is here twice");
}

TEST_CASE("durations and sizes carry units") {
  CHECK(parse_duration("500ms") == Duration(500));
  CHECK(parse_duration("14d") == std::chrono::hours(14 * 24));
  CHECK_FALSE(parse_duration("5"));
  CHECK_FALSE(parse_duration("s"));
  CHECK_FALSE(parse_duration("-5s"));
  CHECK(parse_size("50MiB") == 50ULL << 20);
  CHECK(parse_size("1 GB") == 1000000000ULL);
  CHECK_FALSE(parse_size("50"));
  CHECK_FALSE(parse_size("999999999999999999TiB"));
  CHECK(to_text(std::chrono::seconds(90)) == "90s");
}

TEST_CASE("a reload says what changed") {
  Config before = *parse_config(smallest, "x"), after = *parse_config(smallest + "hostname: other.example\nthreads: 3\n", "x");
  CHECK(changes(before, before).empty());
  CHECK(changes(before, after) == std::vector<std::string>{"hostname changed", "threads changed: takes effect after a restart"});
}

TEST_CASE("networks contain their addresses") {
  CHECK(Network::parse("10.0.0.0/8")->contains("10.255.0.1"));
  CHECK_FALSE(Network::parse("10.0.0.0/8")->contains("11.0.0.1"));
  CHECK(Network::parse("2001:db8::/32")->contains("2001:db8:ffff::1"));
  CHECK_FALSE(Network::parse("10.0.0.0/8")->contains("::1"));
  CHECK(Network::parse("192.0.2.1")->contains("192.0.2.1"));
  CHECK_FALSE(Network::parse("10.0.0.0/33"));
  CHECK_FALSE(Network::parse("ten/8"));
}
