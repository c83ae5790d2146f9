// Blanks around text. Sans I/O.
#pragma once

#include <algorithm>
#include <string_view>

namespace holdfast::proxy {

constexpr bool is_blank(char c) { return c == ' ' || c == '\t'; }

/// text without what it begins and ends with of these bytes.
constexpr std::string_view trimmed(std::string_view text, std::string_view bytes = " \t") {
  text.remove_prefix(std::min(text.find_first_not_of(bytes), text.size()));
  text.remove_suffix(text.size() - 1 - text.find_last_not_of(bytes));  // nothing found is -1
  return text;
}

}  // namespace holdfast::proxy
