// A series of chunks: the newline check says the same over any division.
#include "proxy/command.h"
#include "proxy/content.h"
#include "tests/fuzz/fuzz.h"

using namespace holdfast::proxy;

void fuzz(std::string_view input) {
  std::size_t line = input.find('\n');
  (void)parse_bdat(input.substr(0, line));
  if (line == std::string_view::npos) return;
  std::string_view chunk = input.substr(line + 1);
  NewlineCheck whole;
  bool is_good = whole.feed(chunk);
  NewlineCheck bytes;
  bool is_good_by_bytes = true;
  for (char c : chunk) is_good_by_bytes = is_good_by_bytes && bytes.feed({&c, 1});
  REQUIRE_TRUE(is_good == is_good_by_bytes);
  if (is_good) REQUIRE_TRUE(whole.is_whole() == bytes.is_whole());
}
