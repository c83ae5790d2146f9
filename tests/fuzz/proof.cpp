// What a third party hands in: heads and proofs. Nothing but a rightly signed one may hold.
#include "journal/proof.h"

#include "tests/fuzz/fuzz.h"

using namespace holdfast::journal;

void fuzz(std::string_view input) {
  std::string text(input);
  static const PublicKey key = *PublicKey::from_hex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a");  // RFC 8032 7.1: nobody's
  if (auto head = parse_head(text)) REQUIRE_TRUE(!is_signed_by(text, key));
  (void)check_proof(text, nullptr);
  REQUIRE_TRUE(!check_proof(text, &key));
}
