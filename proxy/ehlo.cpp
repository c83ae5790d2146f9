#include "proxy/ehlo.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <fmt/format.h>

namespace holdfast::proxy {
namespace {

/// Keywords that mean the same with Holdfast in between. Everything else is taken out.
constexpr std::array<std::string_view, 17> honoured = {
    "PIPELINING", "SIZE",    "VRFY", "EXPN", "ETRN", "HELP",          "ENHANCEDSTATUSCODES", "8BITMIME",       "DSN",
    "SMTPUTF8",   "CHUNKING", "BINARYMIME", "DELIVERBY", "MT-PRIORITY", "FUTURERELEASE", "NO-SOLICITING", "LIMITS"};

bool is_one_of(std::string_view word, std::initializer_list<std::string_view> words) {
  return std::find(words.begin(), words.end(), upper(word)) != words.end();
}

bool is_anything(std::string_view) { return true; }
bool is_nothing(std::string_view value) { return value.empty(); }
bool is_number(std::string_view value) { return parse_number(value).has_value(); }
bool is_body(std::string_view value) { return is_one_of(value, {"7BIT", "8BITMIME", "BINARYMIME"}); }
bool is_ret(std::string_view value) { return is_one_of(value, {"FULL", "HDRS"}); }
/// RFC 3461 4.2: "rfc822;ada@example.org". Many primaries take an address that is no xtext, so it is taken for them.
bool is_typed_address(std::string_view value) {
  std::size_t type = value.find(';');
  return type != std::string_view::npos && type > 0 && type + 1 < value.size();
}
/// RFC 3461 4.1: NEVER, or a list of the others.
bool is_notify(std::string_view value) {
  if (is_one_of(value, {"NEVER"})) return true;
  for (std::size_t comma; (comma = value.find(',')) != std::string_view::npos; value.remove_prefix(comma + 1))
    if (!is_one_of(value.substr(0, comma), {"SUCCESS", "FAILURE", "DELAY"})) return false;
  return is_one_of(value, {"SUCCESS", "FAILURE", "DELAY"});
}

struct ParameterOf {
  std::string_view parameter, keyword;
  Verb verb;
  bool (*is_well_formed)(std::string_view value);
};
constexpr std::array known_parameters = {
    ParameterOf{"SIZE", "SIZE", Verb::mail, is_number},
    ParameterOf{"BODY", "8BITMIME", Verb::mail, is_body},
    ParameterOf{"SMTPUTF8", "SMTPUTF8", Verb::mail, is_nothing},
    ParameterOf{"RET", "DSN", Verb::mail, is_ret},
    ParameterOf{"ENVID", "DSN", Verb::mail, is_anything},
    ParameterOf{"NOTIFY", "DSN", Verb::rcpt, is_notify},
    ParameterOf{"ORCPT", "DSN", Verb::rcpt, is_typed_address},
    ParameterOf{"AUTH", "AUTH", Verb::mail, is_anything},
    ParameterOf{"BY", "DELIVERBY", Verb::mail, is_anything},
    ParameterOf{"MT-PRIORITY", "MT-PRIORITY", Verb::mail, is_anything},
    ParameterOf{"HOLDFOR", "FUTURERELEASE", Verb::mail, is_anything},
    ParameterOf{"HOLDUNTIL", "FUTURERELEASE", Verb::mail, is_anything},
    ParameterOf{"SOLICIT", "NO-SOLICITING", Verb::mail, is_anything},
};

const ParameterOf* known(const Parameter& parameter) {
  auto found = std::find_if(known_parameters.begin(), known_parameters.end(), [&](const ParameterOf& one) { return one.parameter == parameter.key; });
  return found == known_parameters.end() ? nullptr : &*found;
}

/// What `params` of a MAIL or RCPT are; all are views of `line`.
std::vector<Parameter> parse_params(std::string_view params, std::string& line) {
  if (params.empty()) return {};
  line = fmt::format("TO:<> {}", params);
  std::optional<EnvelopeCommand> command = parse_envelope(line, "TO:");
  return command ? command->parameters : std::vector<Parameter>();
}

/// RFC 3461 4: "+" begins a byte in hexadecimal; "=" and what is no visible character stand for nothing. Bytes of UTF-8 are left
/// (RFC 6533 3).
std::string as_xtext(std::string_view text) {
  auto is_hex = [&](std::size_t at) { return at < text.size() && std::isxdigit(static_cast<unsigned char>(text[at])); };
  std::string out;
  for (std::size_t i = 0; i < text.size(); ++i) {
    auto byte = static_cast<unsigned char>(text[i]);
    bool is_raw = byte <= ' ' || byte == 127 || byte == '=' || (byte == '+' && !(is_hex(i + 1) && is_hex(i + 2)));
    if (is_raw)
      out += fmt::format("+{:02X}", byte);
    else
      out += text[i];
  }
  return out;
}

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
    bool is_kept = i == 0 || (keyword == "AUTH" && policy.passes_auth) ||
                   std::find(honoured.begin(), honoured.end(), keyword) != honoured.end();
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
  for (std::size_t i = 0; i < shown.size(); ++i)
    wire += fmt::format("{}{}{}\r\n", ehlo.code, i + 1 < shown.size() ? '-' : ' ', shown[i]);
  return wire;
}

std::optional<std::string> first_unoffered(const EnvelopeCommand& command, const Capabilities* capabilities) {
  for (const Parameter& parameter : command.parameters) {
    const ParameterOf* found = known(parameter);
    bool is_binary = parameter.key == "BODY" && upper(parameter.value) == "BINARYMIME";
    if (!found || (capabilities && !capabilities->has(is_binary ? std::string_view("BINARYMIME") : found->keyword)))
      return std::string(parameter.text);
  }
  return std::nullopt;
}

std::optional<std::string> first_malformed(std::string_view params, Verb verb) {
  std::string line;
  for (const Parameter& parameter : parse_params(params, line)) {
    const ParameterOf* found = known(parameter);
    if (!found || found->verb != verb || !found->is_well_formed(parameter.value)) return std::string(parameter.text);
  }
  return std::nullopt;
}

std::string offered_params(std::string_view params, const Capabilities& capabilities, std::initializer_list<std::string_view> without) {
  std::string kept, line;
  for (const Parameter& parameter : parse_params(params, line)) {
    bool is_left_out = std::find(without.begin(), without.end(), parameter.key) != without.end();
    if (is_left_out || first_unoffered({{}, {}, {parameter}}, &capabilities)) continue;
    kept += ' ';
    kept += parameter.text;
  }
  return kept;
}

std::string with_xtext(std::string_view params) {
  std::string out, line;
  for (const Parameter& parameter : parse_params(params, line)) {
    std::string_view encoded;  // what is to be
    if (parameter.key == "ENVID") encoded = parameter.value;
    if (parameter.key == "ORCPT" && is_typed_address(parameter.value)) encoded = parameter.value.substr(parameter.value.find(';') + 1);
    out += fmt::format(" {}{}", parameter.text.substr(0, parameter.text.size() - encoded.size()), as_xtext(encoded));
  }
  return out;
}

}  // namespace holdfast::proxy
