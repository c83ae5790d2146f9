#include "proxy/ehlo.h"

#include <catch2/catch.hpp>

using namespace holdfast::proxy;

namespace {
Reply ehlo(const std::string& wire) { return Reply{250, wire}; }
}  // namespace

TEST_CASE("EHLO keeps what Holdfast honours, in order and to the byte") {
  Reply reply = ehlo(
      "250-mx.example.org hello\r\n250-PIPELINING\r\n250-SIZE 10240000\r\n250-VRFY\r\n250-ETRN\r\n250-ENHANCEDSTATUSCODES\r\n"
      "250-8BITMIME\r\n250-DSN\r\n250-SMTPUTF8\r\n250 CHUNKING\r\n");
  CHECK(filter_ehlo(reply, {false, false, 100000000}) == reply.wire);
}

TEST_CASE("EHLO loses what Holdfast cannot honour, and gets its own STARTTLS") {
  Reply reply = ehlo("250-mx\r\n250-STARTTLS\r\n250-XCLIENT ADDR\r\n250-AUTH PLAIN\r\n250-X-NEW thing\r\n250 8BITMIME\r\n");
  CHECK(filter_ehlo(reply, {false, false, 1}) == "250-mx\r\n250 8BITMIME\r\n");
  CHECK(filter_ehlo(reply, {true, true, 1}) == "250-mx\r\n250-STARTTLS\r\n250-AUTH PLAIN\r\n250 8BITMIME\r\n");
  CHECK(filter_ehlo(ehlo("250 mx\r\n"), {true, false, 1}) == "250-mx\r\n250 STARTTLS\r\n");
}

TEST_CASE("SIZE is the smaller of both") {
  CHECK(filter_ehlo(ehlo("250-mx\r\n250 SIZE 5000\r\n"), {false, false, 4000}) == "250-mx\r\n250 SIZE 4000\r\n");
  CHECK(filter_ehlo(ehlo("250-mx\r\n250 SIZE 3000\r\n"), {false, false, 4000}) == "250-mx\r\n250 SIZE 3000\r\n");
  CHECK(filter_ehlo(ehlo("250-mx\r\n250 SIZE 0\r\n"), {false, false, 4000}) == "250-mx\r\n250 SIZE 4000\r\n");
  CHECK(filter_ehlo(ehlo("250-mx\r\n250 SIZE\r\n"), {false, false, 4000}) == "250-mx\r\n250 SIZE 4000\r\n");
}

TEST_CASE("one offer covers another when it has all its keywords") {
  Capabilities offered = Capabilities::of(ehlo("250-mx\r\n250-SIZE 1\r\n250-AUTH PLAIN\r\n250 8bitmime\r\n"));
  CHECK(offered.covers(Capabilities::of(ehlo("250-other\r\n250 8BITMIME\r\n"))));
  CHECK_FALSE(offered.covers(Capabilities::of(ehlo("250-mx\r\n250 DSN\r\n"))));
}
