// Stored bytes: what decodes encodes to the same bytes.
#include "journal/record.h"

#include "journal/cell.h"
#include "tests/fuzz/fuzz.h"

using namespace holdfast::journal;

void fuzz(std::string_view input) {
  if (auto message = decode_message(input)) REQUIRE_TRUE(encode(*message) == input);
  if (auto outcome = decode_outcome(input)) REQUIRE_TRUE(encode(*outcome) == input);
  if (auto state = decode_state(input)) REQUIRE_TRUE(encode(*state) == input);
  if (auto erasure = decode_erasure(input)) REQUIRE_TRUE(encode(*erasure) == input);
  if (auto access = decode_access(input)) REQUIRE_TRUE(encode(*access) == input);
  if (auto hold = decode_legal_hold(input)) REQUIRE_TRUE(encode(*hold) == input);
  if (auto cell = decode_record_cell(input)) {
    REQUIRE_TRUE(encode_record_cell(*cell) == input);
    REQUIRE_TRUE(!open_record(Key{}, *cell, Decompressor()));
  }
}
