#include "proxy/fold.h"

#include <algorithm>

#include "proxy/late_glib.h"

namespace holdfast::proxy {
namespace {

/// Where to cut text that is longer than that: before an ASCII character, with which no accent or letter before it combines; where
/// there is none, before any character.
std::size_t cut_of(std::string_view text, std::size_t longest) {
  if (text.size() <= longest) return text.size();
  auto cut_before = [&](auto is_possible) {
    std::size_t at = longest;
    while (at > 0 && !is_possible(static_cast<unsigned char>(text[at]))) --at;
    return at;
  };
  std::size_t before_ascii = cut_before([](unsigned char c) { return c < 0x80; });
  std::size_t before_any = cut_before([](unsigned char c) { return (c & 0xc0) != 0x80; });
  return before_ascii > 0 ? before_ascii : before_any > 0 ? before_any : longest;
}

}  // namespace

bool is_ascii(std::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) { return static_cast<unsigned char>(c) < 0x80; });
}

bool is_printable_ascii(std::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) { return c >= 0x20 && c < 0x7f; });
}

std::string fold_ascii(std::string_view text) {
  std::string out(text);
  for (char& c : out) c = lower_ascii(c);
  return out;
}

std::string upper_ascii(std::string_view text) {
  std::string out(text);
  for (char& c : out) c = static_cast<char>(c >= 'a' && c <= 'z' ? c - 32 : c);
  return out;
}

/// Piece by piece, since GLib's normalising takes time by the square of the length.
std::string fold(std::string_view text) {
  if (is_ascii(text)) return fold_ascii(text);
  constexpr std::size_t longest_piece = 256;
  std::string out;
  for (std::size_t size; !text.empty(); text.remove_prefix(size)) {
    size = cut_of(text, longest_piece);
    char* valid = g_utf8_make_valid(text.data(), static_cast<gssize>(size));
    char* normal = g_utf8_normalize(valid, -1, G_NORMALIZE_ALL_COMPOSE);
    char* folded = g_utf8_casefold(normal, -1);
    out += folded;
    for (char* one : {valid, normal, folded}) g_free(one);
  }
  return out;
}

}  // namespace holdfast::proxy
