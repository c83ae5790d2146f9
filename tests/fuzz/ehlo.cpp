// An EHLO reply: what the client is shown is a reply again, and offers nothing that Holdfast does not honour.
#include "proxy/ehlo.h"

#include "tests/fuzz/fuzz.h"

using namespace holdfast::proxy;

void fuzz(std::string_view input) {
  Reply reply;
  std::size_t consumed = 0;
  if (ReplyParser().parse(input, reply, consumed) != ReplyParser::State::complete) return;
  Capabilities capabilities = Capabilities::of(reply);
  (void)capabilities.words_of("SIZE");
  Reply shown;
  std::string wire = filter_ehlo(reply, {true, false, 1000});
  if (wire.size() > ReplyParser::max_size) return;
  REQUIRE_TRUE(ReplyParser().parse(wire, shown, consumed) == ReplyParser::State::complete);
  REQUIRE_TRUE(consumed == wire.size());
  Capabilities offered = Capabilities::of(shown);
  REQUIRE_TRUE(offered.has("STARTTLS") && !offered.has("XCLIENT") && !offered.has("AUTH"));
}
