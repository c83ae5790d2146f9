#include "proxy/content.h"

#include <cstring>

namespace holdfast::proxy {

ContentDecoder::Verdict ContentDecoder::feed(std::string_view input, std::string& content, std::size_t& consumed) {
  const char* at = input.data();
  const char* const end = at + input.size();
  auto stop = [&](Verdict verdict) {
    consumed = static_cast<std::size_t>(at - input.data());
    return verdict;
  };
  while (at < end) {
    switch (state_) {
      case State::line_start:
        if (*at == '.') {
          ++at;
          state_ = State::dot;
          break;
        }
        [[fallthrough]];
      case State::in_line: {
        // The fast path: a whole line at a time, as long as each ends in CRLF and has no other CR.
        state_ = State::in_line;
        auto left = static_cast<std::size_t>(end - at);
        const char* newline = static_cast<const char*>(std::memchr(at, '\n', left));
        const char* limit = newline ? newline : end;
        const char* cr = static_cast<const char*>(std::memchr(at, '\r', static_cast<std::size_t>(limit - at)));
        if (!cr) {
          if (newline) return stop(Verdict::bare_newline);
          content.append(at, left);
          at = end;
          break;
        }
        if (newline && cr + 1 == newline) {
          content.append(at, static_cast<std::size_t>(newline + 1 - at));
          at = newline + 1;
          state_ = State::line_start;
          break;
        }
        content.append(at, static_cast<std::size_t>(cr - at));
        at = cr + 1;
        state_ = State::cr;
        break;
      }
      case State::cr:
        if (*at != '\n') return stop(Verdict::bare_newline);
        content.append("\r\n");
        ++at;
        state_ = State::line_start;
        break;
      case State::dot:
        if (*at == '\r') {
          ++at;
          state_ = State::dot_cr;
          break;
        }
        // A stuffed dot, or a client's careless one: the first dot of a line goes, whatever follows (RFC 5321 4.5.2).
        if (*at == '\n') return stop(Verdict::bare_newline);
        state_ = State::in_line;
        break;
      case State::dot_cr:
        if (*at != '\n') return stop(Verdict::bare_newline);
        ++at;
        return stop(Verdict::end);
    }
  }
  return stop(Verdict::more);
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
