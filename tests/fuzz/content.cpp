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
  ContentDecoder::Verdict verdict = whole.feed(input, used, [&](std::string_view piece) { content += piece; });

  ContentDecoder pieces;
  std::string same;
  std::size_t first = 0, second = 0;
  auto add = [&](std::string_view piece) { same += piece; };
  ContentDecoder::Verdict verdict_of_pieces = pieces.feed(input.substr(0, cut), first, add);
  if (verdict_of_pieces == ContentDecoder::Verdict::more) verdict_of_pieces = pieces.feed(input.substr(cut), second, add);
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
  REQUIRE_TRUE(ContentDecoder().feed(wire, consumed, [&](std::string_view piece) { back += piece; }) == ContentDecoder::Verdict::end);
  REQUIRE_TRUE(back == content && consumed == wire.size());
}
