#include "proxy/ehlo.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "proxy/command.h"

namespace holdfast::proxy {
namespace {

/// Keywords that mean the same with Holdfast in between. Everything else is taken out.
constexpr std::array<std::string_view, 17> honoured = {
    "PIPELINING", "SIZE",     "VRFY",       "EXPN",      "ETRN",        "HELP",          "ENHANCEDSTATUSCODES", "8BITMIME", "DSN",
    "SMTPUTF8",   "CHUNKING", "BINARYMIME", "DELIVERBY", "MT-PRIORITY", "FUTURERELEASE", "NO-SOLICITING",       "LIMITS"};

std::string_view keyword_of(std::string_view text) { return text.substr(0, text.find_first_of(" =")); }

}  // namespace

Capabilities Capabilities::of(const Reply& ehlo) {
  Capabilities capabilities;
  std::vector<std::string_view> lines = ehlo.lines();
  for (std::size_t i = 1; i < lines.size(); ++i) {
    std::string_view keyword = keyword_of(lines[i]);
    std::string_view words = lines[i].substr(keyword.size());
    if (!words.empty()) words.remove_prefix(1);
    capabilities.lines_.push_back({upper(keyword), std::string(words)});
  }
  return capabilities;
}

bool Capabilities::has(std::string_view keyword) const {
  return std::any_of(lines_.begin(), lines_.end(), [&](const Line& line) { return line.keyword == keyword; });
}

bool Capabilities::covers(const Capabilities& other) const {
  return std::all_of(other.lines_.begin(), other.lines_.end(), [&](const Line& line) { return has(line.keyword); });
}

std::optional<std::string> Capabilities::words_of(std::string_view keyword) const {
  for (const Line& line : lines_)
    if (line.keyword == keyword) return line.words;
  return std::nullopt;
}

bool Capabilities::has_word(std::string_view keyword, std::string_view word) const {
  std::optional<std::string> words = words_of(keyword);
  return words && fmt::format(" {} ", upper(*words)).find(fmt::format(" {} ", word)) != std::string::npos;
}

std::string filter_ehlo(const Reply& ehlo, const EhloPolicy& policy) {
  std::vector<std::string> shown;
  std::vector<std::string_view> lines = ehlo.lines();
  for (std::size_t i = 0; i < lines.size(); ++i) {
    std::string keyword = upper(keyword_of(lines[i]));
    bool is_kept = i == 0 || (keyword == "AUTH" && policy.passes_auth) || std::find(honoured.begin(), honoured.end(), keyword) != honoured.end();
    if (!is_kept) continue;
    std::string line(lines[i]);
    if (i > 0 && keyword == "SIZE") {
      std::optional<std::uint64_t> size = parse_number(lines[i].substr(std::min<std::size_t>(5, lines[i].size())));
      // No number or 0 means that the primary knows no limit (RFC 1870 4).
      if (!size || *size == 0 || *size > policy.message_size) line = fmt::format("SIZE {}", policy.message_size);
    }
    shown.push_back(std::move(line));
  }
  if (policy.offers_starttls) shown.insert(shown.begin() + (shown.empty() ? 0 : 1), "STARTTLS");
  std::string wire;
  for (std::size_t i = 0; i < shown.size(); ++i) wire += fmt::format("{}{}{}\r\n", ehlo.code, i + 1 < shown.size() ? '-' : ' ', shown[i]);
  return wire;
}

}  // namespace holdfast::proxy
