// Text as it is compared: without the difference between capitals and small letters, and between the ways to write an accent.
#pragma once

#include <string>
#include <string_view>

namespace holdfast::proxy {

constexpr char lower_ascii(char c) { return static_cast<char>(c >= 'A' && c <= 'Z' ? c + 32 : c); }
bool is_ascii(std::string_view text);
bool is_printable_ascii(std::string_view text);  ///< with blanks, without other space
std::string fold_ascii(std::string_view text);
std::string upper_ascii(std::string_view text);
/// Of UTF-8; bytes that are none are replaced. Takes a time that grows with the text's size and no faster.
std::string fold(std::string_view text);

}  // namespace holdfast::proxy
