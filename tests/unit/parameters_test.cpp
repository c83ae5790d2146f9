#include "proxy/parameters.h"

#include <catch2/catch.hpp>

#include "proxy/units.h"

using namespace holdfast::proxy;

namespace {
Reply ehlo(const std::string& wire) { return Reply{250, wire}; }
}  // namespace

TEST_CASE("of parameters, those that are offered are kept, as written") {
  Capabilities offered = Capabilities::of(ehlo("250-mx\r\n250-SIZE 1\r\n250-AUTH PLAIN\r\n250 8bitmime\r\n"));
  CHECK(offered_params("", offered) == "");
  CHECK(offered_params("size=1  body=8BitMime RET=HDRS SMTPUTF8 AUTH=<>", offered) == " size=1 body=8BitMime AUTH=<>");
  CHECK(offered_params("size=1 body=8BitMime AUTH=<>", offered, {"SIZE", "AUTH"}) == " body=8BitMime");
  CHECK(offered_params("BODY=BINARYMIME", offered) == "");
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
  for (const char* good :
       {"BY=120;R", "by=-5;nt", "BY=+0;N", "MT-PRIORITY=-9", "MT-PRIORITY=0", "HOLDFOR=999999999", "HOLDUNTIL=2026-11-30T08:00:00Z"})
    CHECK(first_malformed(good, Verb::mail).value_or("") == "");
  for (const std::string& bad : std::vector<std::string>{"SIZE=much", "BODY=9BIT", "RET=SOME", "NOTIFY=NEVER", "BY=120", "BY=0;R", "BY=-5;RT",
                                                         "BY=5;X", "BY=1234567890;N", "BY=--5;N", "MT-PRIORITY=10", "MT-PRIORITY=-0", "MT-PRIORITY=",
                                                         "HOLDFOR=0", "HOLDFOR=1234567890", "HOLDUNTIL=tomorrow", "HOLDUNTIL=2026-11-30", "ret=FULL"})
    CHECK(first_malformed("RET=FULL " + bad, Verb::mail) == bad);
  for (const char* good : {"NOTIFY=NEVER", "notify=success,Failure", "ORCPT=rfc822;a+2Bb@example.org", "ORCPT=utf-8;\\x{E4}@example.org",
                           "ORCPT=rfc822;a+b@example.org"})
    CHECK(first_malformed(good, Verb::rcpt).value_or("") == "");
  for (const char* bad : {"NOTIFY=NEVER,DELAY", "NOTIFY=", "ORCPT=a@example.org", "ORCPT=;a@example.org", "SIZE=1"})
    CHECK(first_malformed(bad, Verb::rcpt) == bad);
}

TEST_CASE("what a hold took is said again as every server understands it, less the time that it waited") {
  auto again = [](std::string_view params) {
    const std::int64_t now_us = *parse_date_time("2026-11-30T08:00:00Z");
    return params_said_again(params, std::chrono::seconds(100), now_us);
  };
  CHECK(again("") == "");
  CHECK(again(" BODY=8BITMIME ENVID=a+b=c envid=x+2By ORCPT=rfc822;jane+tag@example.org ORCPT=utf-8;j\xc3\xbc@x ORCPT=a+b ENVID RET=HDRS") ==
        " BODY=8BITMIME ENVID=a+2Bb+3Dc envid=x+2By ORCPT=rfc822;jane+2Btag@example.org ORCPT=utf-8;j\xc3\xbc@x ORCPT=a+b ENVID RET=HDRS");
  CHECK(again("BY=120;R") == " BY=20;R");
  CHECK(again("BY=+100;RT") == " BY=1;RT");
  CHECK(again("BY=60;N") == " BY=-40;N");
  CHECK(again("BY=-999999999;nt") == " BY=-999999999;nt");
  CHECK(again("BY=soon") == " BY=soon");
  CHECK(again("SIZE=1 HOLDFOR=100") == " SIZE=1");
  CHECK(again("HOLDFOR=101") == " HOLDFOR=1");
  CHECK(again("HOLDUNTIL=2026-11-30T07:59:59Z RET=HDRS") == " RET=HDRS");
  CHECK(again("HOLDUNTIL=2026-11-30T08:00:01Z") == " HOLDUNTIL=2026-11-30T08:00:01Z");
  CHECK(again("HOLDUNTIL=x MT-PRIORITY=3") == " HOLDUNTIL=x MT-PRIORITY=3");
}
