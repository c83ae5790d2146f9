// A command line: whatever is taken apart lies within the line, an address never hides a bracket or a blank outside quotes, and parameters
// that are well-formed are so when they are said again.
#include "proxy/command.h"

#include "proxy/address.h"
#include "proxy/parameters.h"
#include "tests/fuzz/fuzz.h"

using namespace holdfast::proxy;

void fuzz(std::string_view input) {
  Command command = parse_command(input);
  (void)parse_bdat(command.argument);
  (void)is_utf8(input);
  for (std::string_view prefix : {"FROM:", "TO:"}) {
    auto envelope = parse_envelope(command.argument, prefix);
    if (!envelope) continue;
    Verb verb = prefix == "TO:" ? Verb::rcpt : Verb::mail;
    if (!first_malformed(envelope->params, verb))
      REQUIRE_TRUE(!first_malformed(params_said_again(envelope->params, std::chrono::seconds(100), 1'800'000'000'000'000), verb));
    if (envelope->address.starts_with('"')) continue;
    REQUIRE_TRUE(envelope->address.find_first_of("<> \r\n,;") == std::string_view::npos);
    (void)domain_of(envelope->address);
  }
}
