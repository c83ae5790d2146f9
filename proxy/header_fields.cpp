#include "proxy/header_fields.h"

#include <strings.h>

#include <algorithm>
#include <optional>

#include "proxy/blanks.h"

namespace holdfast::proxy {
namespace {

constexpr std::size_t longest_value = 998;

/// The value when the line is of the field with that name.
std::optional<std::string_view> value_of(std::string_view line, std::string_view name) {
  if (line.size() <= name.size() || ::strncasecmp(line.data(), name.data(), name.size()) != 0) return std::nullopt;
  std::size_t colon = line.find_first_not_of(" \t", name.size());
  if (colon == std::string_view::npos || line[colon] != ':') return std::nullopt;
  return line.substr(colon + 1);
}

constexpr std::string_view blanks_and_line_ends = " \t\r\n";

/// What stands in angle brackets; all of it where there are none.
std::string_view bracketed(std::string_view text) {
  std::size_t begin = text.find('<'), end = text.find('>', begin == std::string_view::npos ? 0 : begin);
  bool is_there = begin != std::string_view::npos && end != std::string_view::npos;
  return is_there ? trimmed(text.substr(begin + 1, end - begin - 1), blanks_and_line_ends) : text;
}

std::string tidy(std::string_view value) {
  std::string text(trimmed(value, blanks_and_line_ends).substr(0, longest_value));
  text.erase(std::remove_if(text.begin(), text.end(), [](char c) { return c == '\r' || c == '\n'; }), text.end());
  return text;
}

}  // namespace

HeaderFields read_header_fields(std::string_view content) {
  HeaderFields fields;
  while (!content.empty() && !content.starts_with("\r\n")) {
    // A field goes on over lines that begin with a blank.
    std::size_t end = 0;
    do {
      end = content.find("\r\n", end);
      end = end == std::string_view::npos ? content.size() : end + 2;
    } while (end < content.size() && (content[end] == ' ' || content[end] == '\t'));
    std::string_view field = content.substr(0, end);
    content.remove_prefix(end);
    if (auto id = value_of(field, "Message-ID"); id && fields.message_id.empty()) {
      fields.message_id = bracketed(tidy(*id));
    } else if (auto subject = value_of(field, "Subject"); subject && fields.subject.empty()) {
      fields.subject = tidy(*subject);
    }
  }
  return fields;
}

}  // namespace holdfast::proxy
