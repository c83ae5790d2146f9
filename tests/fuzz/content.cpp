// DATA's bytes: any cut gives the same content and end, and encoding it again leads back to it.
#include "proxy/content.h"

#include "tests/fuzz/fuzz.h"

using namespace holdfast::proxy;

void fuzz(std::string_view input) {
  if (input.empty()) return;
  std::size_t cut = static_cast<unsigned char>(input.front()) % input.size();
  input.remove_prefix(1);
  cut = std::min(cut, input.size());
  ContentDecoder whole;
  std::string content;
  std::size_t used = 0;
  ContentDecoder::Verdict verdict = whole.feed(input, content, used);

  ContentDecoder pieces;
  std::string same;
  std::size_t first = 0, second = 0;
  ContentDecoder::Verdict verdict_of_pieces = pieces.feed(input.substr(0, cut), same, first);
  if (verdict_of_pieces == ContentDecoder::Verdict::more) verdict_of_pieces = pieces.feed(input.substr(cut), same, second);
  REQUIRE_TRUE(verdict == verdict_of_pieces);
  if (verdict == ContentDecoder::Verdict::bare_newline) return;
  REQUIRE_TRUE(content == same && used == first + second);
  if (verdict != ContentDecoder::Verdict::end) return;
  NewlineCheck newlines;
  REQUIRE_TRUE(newlines.feed(content) && newlines.is_whole());

  ContentEncoder encoder;
  std::string wire, back;
  encoder.feed(content, wire);
  wire += encoder.end();
  std::size_t consumed = 0;
  REQUIRE_TRUE(ContentDecoder().feed(wire, back, consumed) == ContentDecoder::Verdict::end);
  REQUIRE_TRUE(back == content && consumed == wire.size());
}
