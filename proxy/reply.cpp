#include "proxy/reply.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>

namespace holdfast::proxy {
namespace {

/// The code at the start of a line, or 0.
int code_of(std::string_view line) {
  if (line.size() < 3) return 0;
  for (char c : line.substr(0, 3))
    if (c < '0' || c > '9') return 0;
  int code = (line[0] - '0') * 100 + (line[1] - '0') * 10 + (line[2] - '0');
  return code >= 200 && code < 600 ? code : 0;
}

}  // namespace

std::vector<std::string_view> Reply::lines() const {
  std::vector<std::string_view> texts;
  for (std::string_view rest = wire; !rest.empty();) {
    std::size_t end = rest.find("\r\n");
    std::string_view line = rest.substr(0, end);
    texts.push_back(line.size() > 4 ? line.substr(4) : std::string_view());
    rest.remove_prefix(end + 2);
  }
  return texts;
}

bool Reply::says_too_many() const {
  if (code != 452 && code != 552) return false;
  bool has_any_status = has_status("4.") || has_status("5.");
  return !has_any_status || has_status("4.5.3") || has_status("5.5.3");
}

bool Reply::has_had_enough() const {
  if (code != 421 || has_status("4.3.") || has_status("4.4.")) return false;
  constexpr std::string_view words = "too many";
  auto is_same = [](char a, char b) { return std::tolower(static_cast<unsigned char>(a)) == b; };
  return std::search(wire.begin(), wire.end(), words.begin(), words.end(), is_same) != wire.end();
}

std::string Reply::summary() const {
  std::string text = fmt::format("{}", code);
  for (std::string_view line : lines()) {
    if (text.size() > 1000) break;
    text += ' ';
    text += line;
  }
  return text;
}

ReplyParser::State ReplyParser::parse(std::string_view input, Reply& reply, std::size_t& consumed) const {
  int code = 0;
  std::size_t at = 0;
  for (;;) {
    std::size_t end = input.find('\n', at);
    if (end == std::string_view::npos) return input.size() > max_size ? State::malformed : State::incomplete;
    if (end == at || input[end - 1] != '\r' || end + 1 > max_size) return State::malformed;
    std::string_view line = input.substr(at, end - 1 - at);
    if (line.find('\r') != std::string_view::npos || line.find('\0') != std::string_view::npos) return State::malformed;
    int line_code = code_of(line);
    if (line_code == 0 || (code != 0 && line_code != code)) return State::malformed;
    code = line_code;
    bool is_last = line.size() == 3 || line[3] == ' ';
    if (!is_last && line[3] != '-') return State::malformed;
    at = end + 1;
    if (!is_last) continue;
    reply.code = code;
    reply.wire.assign(input.substr(0, at));
    consumed = at;
    return State::complete;
  }
}

std::string own_reply(int code, std::string_view text) { return fmt::format("{} {}\r\n", code, text); }

}  // namespace holdfast::proxy
