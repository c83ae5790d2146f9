#include "proxy/content.h"

#include <algorithm>
#include <cstring>

namespace holdfast::proxy {

/// The longest run at the start of input that stands for itself: lines without leading dots, bare CR or LF. The first may have begun
/// earlier, and the last may go on, but not with half a newline.
std::string_view ContentDecoder::plain_run(std::string_view input) const {
  const char* const begin = input.data();
  const char* const end = begin + input.size();
  const char* line = begin;
  bool is_start = state_ == State::line_start;
  while (line < end && !(is_start && *line == '.')) {
    auto left = static_cast<std::size_t>(end - line);
    const char* newline = static_cast<const char*>(std::memchr(line, '\n', left));
    if (newline && (newline == line || newline[-1] != '\r')) break;
    const char* text_end = newline ? newline - 1 : end;
    if (std::memchr(line, '\r', static_cast<std::size_t>(text_end - line))) break;
    if (!newline) return input;
    line = newline + 1;
    is_start = true;
  }
  return input.substr(0, static_cast<std::size_t>(line - begin));
}

ContentDecoder::Step ContentDecoder::next(std::string_view input) {
  if (input.empty()) return {{}, 0, Verdict::more};
  char first = input.front();
  switch (state_) {
    case State::line_start:
    case State::in_line: {
      if (std::string_view run = plain_run(input); !run.empty()) {
        state_ = run.back() == '\n' ? State::line_start : State::in_line;
        return {run, run.size(), Verdict::more};
      }
      if (state_ == State::line_start && first == '.') {
        state_ = State::dot;
        return {{}, 1, Verdict::more};
      }
      // Its newline is not whole yet, or not good.
      std::size_t stop = input.find_first_of("\r\n");
      state_ = State::in_line;
      if (input[stop] == '\n') return {input.substr(0, stop), stop, Verdict::bare_newline};
      state_ = State::cr;
      return {input.substr(0, stop), stop + 1, Verdict::more};
    }
    case State::cr:
      if (first != '\n') return {{}, 0, Verdict::bare_newline};
      state_ = State::line_start;
      return {"\r\n", 1, Verdict::more};
    case State::dot:
      // A stuffed dot, or a client's careless one: the first dot of a line goes, whatever follows (RFC 5321 4.5.2).
      state_ = first == '\r' ? State::dot_cr : State::in_line;
      return {{}, first == '\r' ? 1U : 0U, Verdict::more};
    case State::dot_cr: return {{}, first == '\n' ? 1U : 0U, first == '\n' ? Verdict::end : Verdict::bare_newline};
  }
  return {{}, 0, Verdict::bare_newline};
}

bool NewlineCheck::feed(std::string_view piece) {
  if (piece.empty()) return true;
  if (after_cr_ && piece.front() != '\n') return false;
  if (!after_cr_ && piece.front() == '\n') return false;
  const char* at = piece.data() + (after_cr_ ? 1 : 0);
  const char* const end = piece.data() + piece.size();
  after_cr_ = false;
  while (at < end) {
    const char* newline = static_cast<const char*>(std::memchr(at, '\n', static_cast<std::size_t>(end - at)));
    const char* limit = newline ? newline : end;
    const char* cr = static_cast<const char*>(std::memchr(at, '\r', static_cast<std::size_t>(limit - at)));
    if (!newline) {
      if (cr && cr + 1 != end) return false;
      after_cr_ = cr != nullptr;
      return true;
    }
    if (cr == nullptr || cr + 1 != newline) return false;
    at = newline + 1;
  }
  return true;
}

bool ContentEncoder::is_plain(std::string_view piece) const {
  if (piece.empty()) return true;
  if (at_line_start_ && piece.front() == '.') return false;
  return piece.find("\n.") == std::string_view::npos;
}

void ContentEncoder::feed(std::string_view piece, std::string& out) {
  std::string_view left = piece;
  while (!left.empty()) {
    if (at_line_start_ && left.front() == '.') out += '.';
    std::size_t newline = left.find('\n');
    std::size_t size = newline == std::string_view::npos ? left.size() : newline + 1;
    out.append(left.substr(0, size));
    at_line_start_ = newline != std::string_view::npos;
    left.remove_prefix(size);
  }
}

void ContentEncoder::skip(std::string_view piece) {
  if (!piece.empty()) at_line_start_ = piece.back() == '\n';
}

std::string_view ContentEncoder::end() const { return at_line_start_ ? ".\r\n" : "\r\n.\r\n"; }

}  // namespace holdfast::proxy
