#include "proxy/proxy_header.h"

#include <catch2/catch.hpp>

using namespace holdfast::proxy;

namespace {
ProxyParse parse(std::string_view input, ProxyHeader& header, std::size_t& consumed) { return parse_proxy_header(input, header, consumed); }
}  // namespace

TEST_CASE("version 1 headers") {
  ProxyHeader header;
  std::size_t consumed = 0;
  REQUIRE(parse("PROXY TCP4 192.0.2.7 192.0.2.1 40000 25\r\nEHLO", header, consumed) == ProxyParse::complete);
  CHECK(header.source == Endpoint{"192.0.2.7", 40000});
  CHECK(header.destination == Endpoint{"192.0.2.1", 25});
  CHECK(consumed == 41);
  REQUIRE(parse("PROXY TCP6 2001:db8::7 2001:db8::1 1 2\r\n", header, consumed) == ProxyParse::complete);
  CHECK(header.source.address == "2001:db8::7");
  REQUIRE(parse("PROXY UNKNOWN whatever\r\n", header, consumed) == ProxyParse::complete);
  CHECK(header.is_local);
}

TEST_CASE("an IPv4 client is one, also behind a balancer that listens on an IPv6 socket for both") {
  ProxyHeader header;
  std::size_t consumed = 0;
  REQUIRE(parse("PROXY TCP6 ::ffff:192.0.2.7 ::ffff:192.0.2.1 1 2\r\n", header, consumed) == ProxyParse::complete);
  CHECK(header.source == Endpoint{"192.0.2.7", 1});
  CHECK(header.destination == Endpoint{"192.0.2.1", 2});
  REQUIRE(parse("PROXY TCP6 2001:DB8:0::7 2001:db8::1 1 2\r\n", header, consumed) == ProxyParse::complete);
  CHECK(header.source.address == "2001:db8::7");
  REQUIRE(parse(make_proxy_header({"::ffff:192.0.2.7", 1}, {"::ffff:192.0.2.1", 2}), header, consumed) == ProxyParse::complete);
  CHECK(header.source == Endpoint{"192.0.2.7", 1});
}

TEST_CASE("version 2 headers, and those Holdfast makes") {
  for (auto [source, destination] :
       {std::pair(Endpoint{"192.0.2.7", 40000}, Endpoint{"192.0.2.1", 25}), {Endpoint{"2001:db8::7", 65535}, Endpoint{"::1", 1}}}) {
    std::string wire = make_proxy_header(source, destination);
    ProxyHeader header;
    std::size_t consumed = 0;
    for (std::size_t cut = 0; cut < wire.size(); ++cut) CHECK(parse(wire.substr(0, cut), header, consumed) == ProxyParse::incomplete);
    REQUIRE(parse(wire + "EHLO", header, consumed) == ProxyParse::complete);
    CHECK(consumed == wire.size());
    CHECK(header.source == source);
    CHECK(header.destination == destination);
  }
  ProxyHeader header;
  std::size_t consumed = 0;
  REQUIRE(parse(make_proxy_header({"192.0.2.7", 1}, {"::1", 1}), header, consumed) == ProxyParse::complete);
  CHECK(header.is_local);
}

TEST_CASE("what is no PROXY header is refused, and half a one waited for") {
  ProxyHeader header;
  std::size_t consumed = 0;
  for (std::string bad : {"EHLO x\r\n", "PROXY TCP4 1.2.3.4 5.6.7.8 1\r\n", "PROXY TCP4 ::1 ::1 1 1\r\n", "PROXY TCP4 ::1 5.6.7.8 1 1\r\n",
                          "PROXY TCP4 1.2.3.4 ::1 1 1\r\n", "PROXY TCP4 1.2.3.4 5.6.7.8 1 70000\r\n", "PROXY TCP4 1.2.3.4 5.6.7.8 70000 1\r\n",
                          "PROXY TCP5 1.2.3.4 5.6.7.8 1 1\r\n", "PROXY \r\n", "PROXY TCP4 1.2.3.4 5.6.7.8 -1 1\r\n", "\r\n\r\nx"}) {
    CAPTURE(bad);
    CHECK(parse(bad, header, consumed) == ProxyParse::malformed);
  }
  CHECK(parse("PROXY " + std::string(200, 'x'), header, consumed) == ProxyParse::malformed);
  for (std::string part : {"", "P", "PROXY", "PROXY TCP4 1.2", "\r\n\r"}) CHECK(parse(part, header, consumed) == ProxyParse::incomplete);
}
