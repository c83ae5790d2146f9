// A primary's bytes: a complete reply is a prefix of them, and what precedes it was never complete.
#include "proxy/reply.h"

#include "tests/fuzz/fuzz.h"

using namespace holdfast::proxy;

void fuzz(std::string_view input) {
  Reply reply;
  std::size_t consumed = 0;
  if (ReplyParser().parse(input, reply, consumed) != ReplyParser::State::complete) return;
  REQUIRE_TRUE(input.substr(0, consumed) == reply.wire);
  REQUIRE_TRUE(reply.code >= 200 && reply.code < 600);
  (void)reply.lines();
  (void)reply.summary();
  Reply shorter;
  std::size_t ignored = 0;
  REQUIRE_TRUE(ReplyParser().parse(input.substr(0, consumed - 1), shorter, ignored) == ReplyParser::State::incomplete);
}
