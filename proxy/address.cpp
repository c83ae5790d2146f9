#include "proxy/address.h"

#include <cstdint>

#include "proxy/blanks.h"

namespace holdfast::proxy {
namespace {

std::string_view skip_blanks(std::string_view text) {
  while (!text.empty() && is_blank(text.front())) text.remove_prefix(1);
  return text;
}

bool is_special(char c) {
  auto byte = static_cast<unsigned char>(c);
  return byte <= ' ' || byte == 127 || std::string_view("<>()[]\\,;:\"@").find(c) != std::string_view::npos;
}

/// Length of the local part at the start of text, or 0.
std::size_t local_part(std::string_view text) {
  std::size_t size = 0;
  if (text.starts_with('"')) {
    for (size = 1; size < text.size() && text[size] != '"'; ++size) {
      if (text[size] == '\\') ++size;
      if (size >= text.size() || static_cast<unsigned char>(text[size]) < ' ' || text[size] == 127) return 0;
    }
    return size < text.size() ? size + 1 : 0;
  }
  while (size < text.size() && !is_special(text[size])) ++size;
  return size;
}

/// Length of the domain at the start of text, or 0.
std::size_t domain_part(std::string_view text) {
  if (text.starts_with('[')) {
    std::size_t end = text.find(']');
    if (end == std::string_view::npos) return 0;
    for (char c : text.substr(1, end - 1))
      if (c != ':' && is_special(c)) return 0;
    return end + 1;
  }
  std::size_t size = 0;
  while (size < text.size() && !is_special(text[size])) ++size;
  return size;
}

/// Length of the source route at the start of text, with its colon; 0 when there is none, or a bad one.
std::size_t source_route(std::string_view text) {
  std::size_t size = 0;
  while (text.substr(size).starts_with('@')) {
    std::size_t domain = domain_part(text.substr(size + 1));
    if (domain == 0) return 0;
    size += 1 + domain;
    if (text.substr(size).starts_with(':')) return size + 1;
    if (!text.substr(size).starts_with(',')) return 0;
    ++size;
  }
  return 0;
}

}  // namespace

std::optional<Path> parse_path(std::string_view text) {
  text = skip_blanks(text);
  bool is_bracketed = text.starts_with('<');
  if (is_bracketed) text.remove_prefix(1);
  std::size_t route = is_bracketed ? source_route(text) : 0;
  text.remove_prefix(route);
  std::string_view start = text;
  bool is_empty = is_bracketed && route == 0 && text.starts_with('>');
  if (!is_empty) {
    std::size_t local = local_part(text);
    if (local == 0) return std::nullopt;
    text.remove_prefix(local);
    if (text.starts_with('@')) {
      std::size_t domain = domain_part(text.substr(1));
      if (domain == 0) return std::nullopt;
      text.remove_prefix(1 + domain);
    } else if (route > 0) {
      return std::nullopt;
    }
  }
  std::string_view address = start.substr(0, start.size() - text.size());
  if (is_bracketed) {
    if (!text.starts_with('>')) return std::nullopt;
    text.remove_prefix(1);
  }
  if (!text.empty() && !is_blank(text.front())) return std::nullopt;
  return Path{address, skip_blanks(text)};
}

std::string_view domain_of(std::string_view address) {
  std::size_t at = address.rfind('@');
  return at == std::string_view::npos ? std::string_view() : address.substr(at + 1);
}

bool is_domain(std::string_view text) {
  constexpr std::size_t longest_label = 63, longest = 255;
  if (text.starts_with('[')) return domain_part(text) == text.size();
  if (text.ends_with('.')) text.remove_suffix(1);
  if (text.size() > longest) return false;
  while (true) {
    std::size_t dot = text.find('.');
    std::string_view label = text.substr(0, dot);
    if (label.empty() || label.size() > longest_label || label.front() == '-' || label.back() == '-') return false;
    if (dot == std::string_view::npos) return true;
    text.remove_prefix(dot + 1);
  }
}

bool is_utf8(std::string_view text) {
  for (std::size_t i = 0; i < text.size();) {
    auto lead = static_cast<unsigned char>(text[i++]);
    if (lead < 0x80) continue;
    int more = lead >= 0xf0 ? 3 : lead >= 0xe0 ? 2 : 1;
    if (lead < 0xc2 || lead > 0xf4 || text.size() - i < static_cast<std::size_t>(more)) return false;
    std::uint32_t point = lead & (0x3fU >> more);
    for (int k = 0; k < more; ++k) {
      auto byte = static_cast<unsigned char>(text[i++]);
      if ((byte & 0xc0) != 0x80) return false;
      point = point << 6 | (byte & 0x3fU);
    }
    bool is_overlong = (more == 2 && point < 0x800) || (more == 3 && point < 0x10000);
    if (is_overlong || point > 0x10ffff || (point >= 0xd800 && point <= 0xdfff)) return false;
  }
  return true;
}

}  // namespace holdfast::proxy
