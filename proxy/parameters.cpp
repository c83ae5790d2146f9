#include "proxy/parameters.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <set>

#include "proxy/units.h"

namespace holdfast::proxy {
namespace {

bool is_one_of(std::string_view word, std::initializer_list<std::string_view> words) {
  return std::find(words.begin(), words.end(), upper(word)) != words.end();
}

constexpr std::size_t most_digits = 9;  // of a number of seconds (RFC 2852 4, RFC 4865 4)

/// RFC 2852 4: "120;RT".
struct DeliverBy {
  std::int64_t seconds;
  bool is_returned;       ///< mode R: when the time is over it goes back
  std::string_view mode;  ///< with what follows it, as written
};
std::optional<DeliverBy> parse_deliver_by(std::string_view value) {
  std::size_t semicolon = value.find(';');
  if (semicolon == std::string_view::npos) return std::nullopt;
  std::string_view number = value.substr(0, semicolon), mode = value.substr(semicolon + 1);
  bool is_negative = number.starts_with('-');
  if (is_negative || number.starts_with('+')) number.remove_prefix(1);
  std::optional<std::uint64_t> seconds = number.size() <= most_digits ? parse_number(number) : std::nullopt;
  if (!seconds || !is_one_of(mode, {"N", "NT", "R", "RT"})) return std::nullopt;
  DeliverBy by{static_cast<std::int64_t>(*seconds), is_one_of(mode, {"R", "RT"}), mode};
  if (is_negative) by.seconds = -by.seconds;
  if (by.is_returned && by.seconds <= 0) return std::nullopt;
  return by;
}

std::optional<std::int64_t> parse_hold_for(std::string_view value) {
  std::optional<std::uint64_t> seconds = value.size() <= most_digits ? parse_number(value) : std::nullopt;
  if (!seconds || *seconds == 0) return std::nullopt;
  return static_cast<std::int64_t>(*seconds);
}

/// RFC 4865 with erratum 2040: as RFC 3339 has it. In microseconds since 1970.
std::optional<std::int64_t> parse_hold_until(std::string_view value) { return parse_date_time(std::string(value)); }

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
bool is_deliver_by(std::string_view value) { return parse_deliver_by(value).has_value(); }
bool is_hold_for(std::string_view value) { return parse_hold_for(value).has_value(); }
bool is_hold_until(std::string_view value) { return parse_hold_until(value).has_value(); }
/// RFC 6710 4: -9 to 9.
bool is_priority(std::string_view value) {
  std::string_view digit = value.starts_with('-') ? value.substr(1) : value;
  return digit.size() == 1 && is_number(digit) && value != "-0";
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
    ParameterOf{"BY", "DELIVERBY", Verb::mail, is_deliver_by},
    ParameterOf{"MT-PRIORITY", "MT-PRIORITY", Verb::mail, is_priority},
    ParameterOf{"HOLDFOR", "FUTURERELEASE", Verb::mail, is_hold_for},
    ParameterOf{"HOLDUNTIL", "FUTURERELEASE", Verb::mail, is_hold_until},
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

/// One parameter as it is said again; empty when it says nothing any more.
std::string said_again(const Parameter& parameter, std::int64_t waited_s, std::int64_t now_us) {
  if (parameter.key == "ENVID")
    return fmt::format("{}{}", parameter.text.substr(0, parameter.text.size() - parameter.value.size()), as_xtext(parameter.value));
  if (parameter.key == "ORCPT" && is_typed_address(parameter.value)) {
    std::string_view address = parameter.value.substr(parameter.value.find(';') + 1);
    return fmt::format("{}{}", parameter.text.substr(0, parameter.text.size() - address.size()), as_xtext(address));
  }
  if (parameter.key == "BY") {
    std::optional<DeliverBy> by = parse_deliver_by(parameter.value);
    constexpr std::int64_t longest_ago = -999'999'999;  // most_digits
    if (by) return fmt::format("BY={};{}", std::max(by->seconds - waited_s, by->is_returned ? 1 : longest_ago), by->mode);
  }
  if (parameter.key == "HOLDFOR") {
    std::optional<std::int64_t> seconds = parse_hold_for(parameter.value);
    if (seconds) return *seconds > waited_s ? fmt::format("HOLDFOR={}", *seconds - waited_s) : "";
  }
  if (parameter.key == "HOLDUNTIL") {
    std::optional<std::int64_t> until_us = parse_hold_until(parameter.value);
    if (until_us && *until_us <= now_us) return "";
  }
  return std::string(parameter.text);
}

}  // namespace

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
  std::set<std::string> seen;
  for (const Parameter& parameter : parse_params(params, line)) {
    const ParameterOf* found = known(parameter);
    bool is_well_formed = found && found->verb == verb && found->is_well_formed(parameter.value) && seen.insert(parameter.key).second;
    if (!is_well_formed) return std::string(parameter.text);
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

std::string params_said_again(std::string_view params, std::chrono::seconds waited, std::int64_t now_us) {
  std::string out, line;
  for (const Parameter& parameter : parse_params(params, line)) {
    std::string text = said_again(parameter, waited.count(), now_us);
    if (!text.empty()) out += " " + text;
  }
  return out;
}

}  // namespace holdfast::proxy
