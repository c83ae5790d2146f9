// Message content on the wire: DATA's dot-stuffing and end, and BDAT's chunks (RFC 5321 4.5.2, RFC 3030). Sans I/O.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace holdfast::proxy {

/// Removes dot-stuffing and finds the end of content (RFC 5321 4.5.2).
///
/// Feed bytes as they arrive, in pieces of any size; state is kept between calls. Only CRLF "." CRLF ends content (or
/// "." CRLF at its very start): a bare CR or LF anywhere is reported as Verdict::bare_newline and nothing after it is trusted.
class ContentDecoder {
 public:
  enum class Verdict { more, end, bare_newline };

  /// Hands decoded bytes to take(std::string_view), in as few pieces as the input allows and without copying them; returns
  /// what was found, and sets consumed to the number of input bytes used.
  template <class Take>
  Verdict feed(std::string_view input, std::size_t& consumed, Take take) {
    for (std::string_view left = input;;) {
      Step step = next(left);
      if (!step.content.empty()) take(step.content);
      left.remove_prefix(step.consumed);
      consumed = input.size() - left.size();
      if (step.verdict != Verdict::more || left.empty()) return step.verdict;
    }
  }

 private:
  struct Step {
    std::string_view content;
    std::size_t consumed;
    Verdict verdict;
  };
  Step next(std::string_view input);
  std::string_view plain_run(std::string_view input) const;

  enum class State { line_start, dot, dot_cr, in_line, cr };
  State state_ = State::line_start;
};

/// Looks for bare CR and LF in content whose end is known by count (BDAT), over any division into pieces.
class NewlineCheck {
 public:
  /// False at the first bare CR or LF.
  bool feed(std::string_view piece);
  /// To be asked at the end of the content: false when its last byte is a CR.
  bool is_whole() const { return !after_cr_; }

 private:
  bool after_cr_ = false;
};

/// Adds dot-stuffing for DATA. State is kept between calls; the same object serves one content.
class ContentEncoder {
 public:
  /// True when the piece can be sent as it is.
  bool is_plain(std::string_view piece) const;
  /// Appends the stuffed piece to out. To be called for every piece, in order, unless skip() is.
  void feed(std::string_view piece, std::string& out);
  /// Notes a piece that was sent as it is.
  void skip(std::string_view piece);
  /// What ends the content: CRLF "." CRLF, without the first CRLF when the content ended with one (or is empty).
  std::string_view end() const;

 private:
  bool at_line_start_ = true;
};

}  // namespace holdfast::proxy
