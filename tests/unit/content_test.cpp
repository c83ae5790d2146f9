#include "proxy/content.h"

#include <catch2/catch.hpp>
#include <string>
#include <vector>

using namespace holdfast::proxy;
using Verdict = ContentDecoder::Verdict;

namespace {

struct Decoded {
  std::string content;
  Verdict verdict = Verdict::more;
  std::size_t used = 0;
  bool operator==(const Decoded&) const = default;
};

/// Feeds the wire bytes in pieces that end at the cuts.
Decoded decode(const std::string& wire, const std::vector<std::size_t>& cuts = {}) {
  ContentDecoder decoder;
  Decoded result;
  std::vector<std::size_t> ends = cuts;
  ends.push_back(wire.size());
  std::size_t start = 0;
  for (std::size_t end : ends) {
    std::size_t consumed = 0;
    result.verdict =
        decoder.feed(std::string_view(wire).substr(start, end - start), consumed, [&](std::string_view piece) { result.content += piece; });
    result.used = start + consumed;
    if (result.verdict != Verdict::more) break;
    start = end;
  }
  return result;
}

const std::string nul(1, '\0');

}  // namespace

TEST_CASE("content ends only at CRLF . CRLF, wherever the stream is cut") {
  struct Row {
    std::string wire, content;
    Verdict verdict;
  };
  const std::vector<Row> rows = {
      {"a\r\n.\r\n", "a\r\n", Verdict::end},
      {".\r\n", "", Verdict::end},
      {"\r\n.\r\n", "\r\n", Verdict::end},
      {"a\r\n..\r\n.\r\n", "a\r\n.\r\n", Verdict::end},
      {"a\r\n.b\r\n.\r\n", "a\r\nb\r\n", Verdict::end},
      {"..\r\n.\r\n", ".\r\n", Verdict::end},
      {"a\r\n" + nul + ".\r\n.\r\n", "a\r\n" + nul + ".\r\n", Verdict::end},
      {"a\r\n." + nul + "\r\n.\r\n", "a\r\n" + nul + "\r\n", Verdict::end},
      {"a.\r\n.\r\n", "a.\r\n", Verdict::end},
      {"a\r\n.", "a\r\n", Verdict::more},
      {"a\r\n.\r", "a\r\n", Verdict::more},
      {"a\n.\r\n", "", Verdict::bare_newline},
      {"a\n.\n", "", Verdict::bare_newline},
      {"a\r\n.\n", "a\r\n", Verdict::bare_newline},
      {"a\r.\r\n", "a", Verdict::bare_newline},
      {"a\r.\r", "a", Verdict::bare_newline},
      {"a\r\n.\r\r\n", "a\r\n", Verdict::bare_newline},
      {"a\r\r\n.\r\n", "a", Verdict::bare_newline},
      {"a\r\n.\r.\r\n", "a\r\n", Verdict::bare_newline},
      {"\n", "", Verdict::bare_newline},
      {"\r" + nul + "\n.\r\n", "", Verdict::bare_newline},
      {"a\r" + nul + "\n", "a", Verdict::bare_newline},
  };
  for (const Row& row : rows) {
    CAPTURE(row.wire);
    Decoded whole = decode(row.wire);
    CHECK(whole.verdict == row.verdict);
    if (row.verdict != Verdict::bare_newline) CHECK(whole.content == row.content);
    for (std::size_t first = 0; first <= row.wire.size(); ++first) {
      for (std::size_t second = first; second <= row.wire.size(); ++second) {
        Decoded cut = decode(row.wire, {first, second});
        CHECK(cut.verdict == whole.verdict);
        if (row.verdict != Verdict::bare_newline) CHECK(cut == whole);
      }
    }
  }
}

TEST_CASE("what follows the end of content is left alone") {
  Decoded decoded = decode("x\r\n.\r\nRSET\r\n");
  CHECK(decoded.verdict == Verdict::end);
  CHECK(decoded.used == 6);
}

TEST_CASE("encoding and decoding give back any content that has whole lines") {
  for (std::string content : {"", ".\r\n", "..\r\n.\r\n", "a\r\n.b\r\n\r\n", "\r\n\r\n", "a\r\n.\r\n.\r\n"}) {
    for (std::size_t cut = 0; cut <= content.size(); ++cut) {
      ContentEncoder encoder;
      std::string wire;
      for (std::string_view piece : {std::string_view(content).substr(0, cut), std::string_view(content).substr(cut)}) {
        if (encoder.is_plain(piece)) {
          encoder.skip(piece);
          wire += piece;
        } else {
          encoder.feed(piece, wire);
        }
      }
      wire += encoder.end();
      Decoded decoded = decode(wire);
      CHECK(decoded.verdict == Verdict::end);
      CHECK(decoded.content == content);
      CHECK(decoded.used == wire.size());
    }
  }
}

TEST_CASE("content without a last newline gets one on the wire of DATA") {
  ContentEncoder encoder;
  encoder.skip("abc");
  CHECK(encoder.end() == "\r\n.\r\n");
}

TEST_CASE("bare newlines in chunks are found over any cut") {
  for (std::string good : {"", "a", "a\r\n", "\r\n\r\n", "a\r\nb"}) {
    for (std::size_t cut = 0; cut <= good.size(); ++cut) {
      NewlineCheck check;
      CHECK((check.feed(good.substr(0, cut)) && check.feed(good.substr(cut)) && check.is_whole()));
    }
  }
  for (std::string bad : {"\n", "a\n", "\r", "a\r", "\ra", "\r\r\n", "a\r\n\n", "\r\n\r", "a\nb\r\n"}) {
    for (std::size_t cut = 0; cut <= bad.size(); ++cut) {
      NewlineCheck check;
      CHECK_FALSE((check.feed(bad.substr(0, cut)) && check.feed(bad.substr(cut)) && check.is_whole()));
    }
  }
}
