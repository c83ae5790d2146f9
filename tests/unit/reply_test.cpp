#include "proxy/reply.h"

#include <catch2/catch.hpp>

using namespace holdfast::proxy;
using State = ReplyParser::State;

namespace {
State parse(const std::string& input, Reply& reply, std::size_t& consumed) { return ReplyParser().parse(input, reply, consumed); }
}  // namespace

TEST_CASE("replies are cut out whole and kept byte for byte") {
  Reply reply;
  std::size_t consumed = 0;
  REQUIRE(parse("250-a b\r\n250-\r\n250 c\r\n354 next", reply, consumed) == State::complete);
  CHECK(reply.code == 250);
  CHECK(reply.wire == "250-a b\r\n250-\r\n250 c\r\n");
  CHECK(consumed == reply.wire.size());
  CHECK(reply.lines() == std::vector<std::string_view>{"a b", "", "c"});
  CHECK(reply.summary() == "250 a b  c");
  REQUIRE(parse("220\r\n", reply, consumed) == State::complete);
  CHECK(reply.code == 220);
}

TEST_CASE("half a reply is waited for") {
  Reply reply;
  std::size_t consumed = 0;
  for (std::string part : {"", "2", "250", "250 ok", "250 ok\r", "250-a\r\n", "250-a\r\n250 b"})
    CHECK(parse(part, reply, consumed) == State::incomplete);
}

TEST_CASE("nonsense is no reply") {
  Reply reply;
  std::size_t consumed = 0;
  const std::vector<std::string> all = {"\r\n",      "hello\r\n",    "25 x\r\n",           "2500 x\r\n",
                                        "150 x\r\n", "650 x\r\n",    "250-a\r\n251 b\r\n", "250 a\n",
                                        "\n",        "250 a\rb\r\n", "250_a\r\n",          "250 a" + std::string(1, '\0') + "\r\n"};
  for (const std::string& bad : all) {
    CAPTURE(bad);
    CHECK(parse(bad, reply, consumed) == State::malformed);
  }
  CHECK(parse(std::string(ReplyParser::max_size + 1, 'x'), reply, consumed) == State::malformed);
  CHECK(parse("250 " + std::string(ReplyParser::max_size, 'x') + "\r\n", reply, consumed) == State::malformed);
}

TEST_CASE("too many recipients is said in one way (RFC 5321 4.5.3.1.10); a full disk and a full mailbox have the same code") {
  Reply reply;
  for (auto [wire, is_meant] : {std::pair("452 4.5.3 Too many recipients\r\n", true),
                                {"552 5.5.3 Too many recipients\r\n", true},
                                {"452 too many recipients\r\n", true},
                                {"452 4.3.1 Insufficient system storage\r\n", false},
                                {"452 4.2.2 Mailbox full\r\n", false},
                                {"552 5.2.2 Mailbox full\r\n", false},
                                {"450 4.5.3 x\r\n", false}}) {
    CAPTURE(wire);
    std::size_t consumed = 0;
    REQUIRE(parse(wire, reply, consumed) == State::complete);
    CHECK(reply.says_too_many() == is_meant);
  }
}
