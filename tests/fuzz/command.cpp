// A command line: whatever is taken apart lies within the line, and an address never hides a bracket or a blank outside quotes.
#include "proxy/command.h"

#include "proxy/address.h"
#include "tests/fuzz/fuzz.h"

using namespace holdfast::proxy;

void fuzz(std::string_view input) {
  Command command = parse_command(input);
  (void)parse_bdat(command.argument);
  (void)is_utf8(input);
  for (std::string_view prefix : {"FROM:", "TO:"}) {
    auto envelope = parse_envelope(command.argument, prefix);
    if (!envelope || envelope->address.starts_with('"')) continue;
    REQUIRE_TRUE(envelope->address.find_first_of("<> \r\n,;") == std::string_view::npos);
    (void)domain_of(envelope->address);
  }
}
