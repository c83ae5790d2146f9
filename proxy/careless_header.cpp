#include "proxy/careless_header.h"

#include <optional>

namespace holdfast::proxy {
namespace {

/// How many characters of base64 the encoded word has that ends here (RFC 2047: "=?charset?b?" stands before them).
std::optional<std::size_t> base64_word_before(std::string_view text) {
  std::size_t mark = text.rfind('?');
  if (mark == std::string_view::npos || mark < 2 || (text[mark - 1] != 'b' && text[mark - 1] != 'B') || text[mark - 2] != '?') return {};
  std::size_t begin = text.rfind("=?", mark - 2);
  bool is_word = begin != std::string_view::npos && text.substr(begin + 2, mark - begin - 4).find_first_of("? \t") == std::string_view::npos;
  return is_word ? std::optional(text.size() - mark - 1) : std::nullopt;
}

bool has_odd_dots(std::string_view local_part) {
  return !local_part.empty() && (local_part.front() == '.' || local_part.back() == '.' || local_part.find("..") != std::string_view::npos);
}

/// How long the quoted string, comment or text in brackets is that begins there, or else 1; what has no end goes on to the end of all.
std::size_t enclosed(std::string_view text) {
  constexpr std::string_view begins = "\"([", ends = "\")]";
  std::size_t kind = begins.find(text.front());
  if (kind == std::string_view::npos) return 1;
  for (std::size_t at = 1; at < text.size(); ++at) {
    if (text[at] == ends[kind]) return at + 1;
    if (text[at] == '\\') ++at;
  }
  return text.size();
}

}  // namespace

std::string with_regular_words(std::string_view value) {
  constexpr std::string_view end_of_word = "?=", begin = "=?", blanks = " \t\r\n";
  std::string out;
  std::size_t together = 0;
  for (std::size_t end; (end = value.find(end_of_word)) != std::string_view::npos;) {
    std::optional<std::size_t> size = base64_word_before(value.substr(0, end));
    bool is_padded = size && end > 0 && value[end - 1] == '=';
    std::size_t next = value.find_first_not_of(blanks, end + end_of_word.size());
    bool is_followed = next != std::string_view::npos && value.substr(next).starts_with(begin);
    together = size ? together + *size : 0;
    out += value.substr(0, end);
    if (size && !is_padded && !is_followed) out.append((4 - together % 4) % 4, '=');
    out += end_of_word;
    if (is_padded && is_followed) out += " =?utf-8?q?\?= ";
    if (is_padded || !is_followed) together = 0;
    value.remove_prefix(end + end_of_word.size());
  }
  out += value;
  return out;
}

std::string with_regular_addresses(std::string_view value) {
  constexpr std::string_view ends_atom = " \t\r\n\"(),:;<>@[\\]";
  std::string out;
  bool in_group = false, in_angles = false;
  std::size_t atom = 0;  // where in out it begins
  while (!value.empty()) {
    char c = value.front();
    std::string_view piece = value.substr(0, enclosed(value));
    value.remove_prefix(piece.size());
    if (c == '@' && has_odd_dots(std::string_view(out).substr(atom))) out.insert(atom, 1, '"') += '"';
    bool is_in_name = c == '[' && piece.ends_with(']') && !in_angles && !out.ends_with('@') && piece.find_first_of("\"\\") == std::string_view::npos;
    if (is_in_name)
      (out += '"').append(piece) += '"';
    else
      out += c == ';' && !in_group ? "," : piece;
    if (c == '<' || c == '>') in_angles = c == '<';
    if (c == ';' || (c == ':' && !in_angles)) in_group = c == ':';
    if (ends_atom.find(c) != std::string_view::npos) atom = out.size();
  }
  return out;
}

std::vector<std::string> words_with_at_sign(std::string_view value) {
  constexpr std::string_view asides = "\"(", ends_word = " \t\r\n,:;<>";
  std::vector<std::string> words;
  std::string word;
  std::string_view quoted;  // what stands right before the word
  auto end_word = [&] {
    bool is_local_part = quoted.size() >= 2 && word.starts_with('@');
    if (word.find('@') != std::string::npos) words.push_back(is_local_part ? std::string(quoted.substr(1, quoted.size() - 2)) + word : word);
    word.clear();
  };
  while (!value.empty()) {
    bool is_aside = asides.find(value.front()) != std::string_view::npos;
    bool is_end = is_aside || ends_word.find(value.front()) != std::string_view::npos;
    std::string_view piece = value.substr(0, is_aside ? enclosed(value) : 1);
    if (is_end) end_word();
    if (is_end) quoted = piece.starts_with('"') ? piece : std::string_view();
    if (!is_end) word += piece;
    value.remove_prefix(piece.size());
  }
  end_word();
  return words;
}

}  // namespace holdfast::proxy
