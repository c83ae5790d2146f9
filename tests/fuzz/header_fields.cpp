// A message's beginning: the fields shown are short and hold no line ends.
#include "proxy/header_fields.h"

#include "tests/fuzz/fuzz.h"

using namespace holdfast::proxy;

void fuzz(std::string_view input) {
  HeaderFields fields = read_header_fields(input);
  for (const std::string& value : {fields.message_id, fields.subject}) {
    REQUIRE_TRUE(value.size() <= 998);
    REQUIRE_TRUE(value.find_first_of("\r\n") == std::string::npos);
  }
}
