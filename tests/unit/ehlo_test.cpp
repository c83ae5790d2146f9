#include "proxy/ehlo.h"

#include <catch2/catch.hpp>

using namespace holdfast::proxy;

namespace {
Reply ehlo(const std::string& wire) { return Reply{250, wire}; }
}  // namespace

TEST_CASE("EHLO keeps what Holdfast honours, in order and to the byte") {
  Reply reply = ehlo("250-mx.example.org hello\r\n250-PIPELINING\r\n250-SIZE 10240000\r\n250-VRFY\r\n250-ETRN\r\n250-ENHANCEDSTATUSCODES\r\n"
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

TEST_CASE("of parameters, those that are offered are kept, as written") {
  Capabilities offered = Capabilities::of(ehlo("250-mx\r\n250-SIZE 1\r\n250-AUTH PLAIN\r\n250 8bitmime\r\n"));
  CHECK(offered_params("", offered) == "");
  CHECK(offered_params("size=1  body=8BitMime RET=HDRS SMTPUTF8 AUTH=<>", offered) == " size=1 body=8BitMime AUTH=<>");
  CHECK(offered_params("size=1 body=8BitMime AUTH=<>", offered, {"SIZE", "AUTH"}) == " body=8BitMime");
  CHECK(offered_params("BODY=BINARYMIME", offered) == "");
  CHECK(with_xtext(" BODY=8BITMIME ENVID=a+b=c envid=x+2By ORCPT=rfc822;jane+tag@example.org ORCPT=utf-8;j\xc3\xbc@x ORCPT=a+b ENVID RET=HDRS") ==
        " BODY=8BITMIME ENVID=a+2Bb+3Dc envid=x+2By ORCPT=rfc822;jane+2Btag@example.org ORCPT=utf-8;j\xc3\xbc@x ORCPT=a+b ENVID RET=HDRS");
  CHECK(with_xtext("") == "");
  CHECK(offered.covers(Capabilities::of(ehlo("250-other\r\n250 8BITMIME\r\n"))));
  CHECK_FALSE(offered.covers(Capabilities::of(ehlo("250-mx\r\n250 DSN\r\n"))));
}

TEST_CASE("parameters that were not offered are found") {
  Capabilities offered = Capabilities::of(ehlo("250-mx\r\n250-SIZE 1\r\n250 8bitmime\r\n"));
  auto unoffered = [&](const std::string& argument) { return first_unoffered(*parse_envelope(argument, "FROM:"), &offered); };
  CHECK_FALSE(unoffered("FROM:<> SIZE=1 BODY=8BITMIME"));
  CHECK(unoffered("FROM:<> BODY=BINARYMIME") == "BODY=BINARYMIME");
  CHECK(unoffered("FROM:<> SMTPUTF8") == "SMTPUTF8");
  CHECK(unoffered("FROM:<> RET=HDRS") == "RET=HDRS");
  CHECK(unoffered("FROM:<> FOO=1") == "FOO=1");
  CHECK(first_unoffered(*parse_envelope("FROM:<> FOO", "FROM:"), nullptr) == "FOO");
  CHECK_FALSE(first_unoffered(*parse_envelope("FROM:<> SMTPUTF8", "FROM:"), nullptr));
}

TEST_CASE("parameters that are no such thing are found") {
  for (const char* good : {"", "SIZE=1 BODY=8bitmime RET=hdrs ENVID=QQ+2B314 SMTPUTF8", "AUTH=<>", "ENVID=a+b"})
    CHECK(first_malformed(good, Verb::mail).value_or("") == "");
  for (const std::string& bad : std::vector<std::string>{"SIZE=much", "BODY=9BIT", "RET=SOME", "NOTIFY=NEVER"})
    CHECK(first_malformed("RET=FULL " + bad, Verb::mail) == bad);
  for (const char* good : {"NOTIFY=NEVER", "notify=success,Failure", "ORCPT=rfc822;a+2Bb@example.org", "ORCPT=utf-8;\\x{E4}@example.org",
                           "ORCPT=rfc822;a+b@example.org"})
    CHECK(first_malformed(good, Verb::rcpt).value_or("") == "");
  for (const char* bad : {"NOTIFY=NEVER,DELAY", "NOTIFY=", "ORCPT=a@example.org", "ORCPT=;a@example.org", "SIZE=1"})
    CHECK(first_malformed(bad, Verb::rcpt) == bad);
}
