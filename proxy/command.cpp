#include "proxy/command.h"

#include <algorithm>
#include <array>

#include "proxy/address.h"
#include "proxy/blanks.h"

namespace holdfast::proxy {
namespace {

struct NamedVerb {
  std::string_view name;
  Verb verb;
};

constexpr std::array verbs = {
    NamedVerb{"MAIL", Verb::mail},
    NamedVerb{"RCPT", Verb::rcpt},
    NamedVerb{"DATA", Verb::data},
    NamedVerb{"BDAT", Verb::bdat},
    NamedVerb{"EHLO", Verb::ehlo},
    NamedVerb{"HELO", Verb::helo},
    NamedVerb{"QUIT", Verb::quit},
    NamedVerb{"RSET", Verb::rset},
    NamedVerb{"NOOP", Verb::noop},
    NamedVerb{"STARTTLS", Verb::starttls},
    NamedVerb{"AUTH", Verb::auth},
    NamedVerb{"VRFY", Verb::vrfy},
    NamedVerb{"EXPN", Verb::expn},
    NamedVerb{"HELP", Verb::help},
    NamedVerb{"ETRN", Verb::etrn},
    NamedVerb{"XCLIENT", Verb::forbidden},
    NamedVerb{"XFORWARD", Verb::forbidden},
    NamedVerb{"TURN", Verb::forbidden},
    NamedVerb{"ATRN", Verb::forbidden},
    NamedVerb{"BURL", Verb::forbidden},
    NamedVerb{"XEXCH50", Verb::forbidden},
    NamedVerb{"X-EXPS", Verb::forbidden},
    NamedVerb{"XSHADOW", Verb::forbidden},
    NamedVerb{"XPROXY", Verb::forbidden},
    NamedVerb{"XPROXYFROM", Verb::forbidden},
    NamedVerb{"XPROXYTO", Verb::forbidden},
    NamedVerb{"X-LINK2STATE", Verb::forbidden},
    NamedVerb{"X-ANONYMOUSTLS", Verb::forbidden},
    NamedVerb{"LHLO", Verb::forbidden},
};

bool equals(std::string_view a, std::string_view upper_case) {
  return a.size() == upper_case.size() && std::equal(a.begin(), a.end(), upper_case.begin(), [](char c, char u) {
           return (c >= 'a' && c <= 'z' ? static_cast<char>(c - 'a' + 'A') : c) == u;
         });
}

}  // namespace

std::string upper(std::string_view text) {
  std::string result(text);
  for (char& c : result)
    if (c >= 'a' && c <= 'z') c = static_cast<char>(c - 'a' + 'A');
  return result;
}

Command parse_command(std::string_view line) {
  while (!line.empty() && is_blank(line.front())) line.remove_prefix(1);
  std::size_t end = 0;
  while (end < line.size() && !is_blank(line[end])) ++end;
  Command command;
  command.verb_text = line.substr(0, end);
  command.argument = trimmed(line.substr(end));
  for (const NamedVerb& named : verbs)
    if (equals(command.verb_text, named.name)) command.verb = named.verb;
  return command;
}

std::string_view fault_of_line_end(std::string_view line) {
  if (line.size() < 2 || line[line.size() - 2] != '\r') return "bare <LF>";
  return line.find('\r') == line.size() - 2 ? "" : "bare <CR>";
}

std::string_view fault_of(const Command& command, std::string_view line, bool has_smtputf8) {
  bool has_control = std::any_of(line.begin(), line.end(), [](char c) { return (static_cast<unsigned char>(c) < ' ' && c != '\t') || c == 127; });
  bool has_8_bit = std::any_of(line.begin(), line.end(), [](char c) { return static_cast<unsigned char>(c) >= 128; });
  if (has_control) return "control character in a command";
  if (!has_8_bit) return "";
  bool may_have = command.verb == Verb::mail || command.verb == Verb::rcpt || command.verb == Verb::vrfy || command.verb == Verb::expn;
  if (!may_have || !has_smtputf8) return "8-bit character in a command";
  return is_utf8(line) ? "" : "bad UTF-8 syntax";
}

std::optional<EnvelopeCommand> parse_envelope(std::string_view argument, std::string_view prefix) {
  if (argument.size() < prefix.size() || !equals(argument.substr(0, prefix.size()), prefix)) return std::nullopt;
  std::optional<Path> path = parse_path(argument.substr(prefix.size()));
  if (!path) return std::nullopt;
  EnvelopeCommand command{path->address, path->rest, {}};
  for (std::string_view rest = path->rest; !rest.empty();) {
    std::size_t end = std::min(rest.find_first_of(" \t"), rest.size());
    std::string_view token = rest.substr(0, end);
    std::size_t equal = token.find('=');
    bool has_value = equal != std::string_view::npos;
    command.parameters.push_back({upper(token.substr(0, equal)), has_value ? token.substr(equal + 1) : std::string_view(), token});
    rest = trimmed(rest.substr(end));
  }
  return command;
}

std::optional<std::uint64_t> parse_number(std::string_view digits) {
  if (digits.empty() || digits.size() > 18) return std::nullopt;
  std::uint64_t value = 0;
  for (char c : digits) {
    if (c < '0' || c > '9') return std::nullopt;
    value = value * 10 + static_cast<std::uint64_t>(c - '0');
  }
  return value;
}

std::optional<BdatCommand> parse_bdat(std::string_view argument) {
  std::size_t end = std::min(argument.find(' '), argument.size());
  std::optional<std::uint64_t> size = parse_number(argument.substr(0, end));
  if (!size) return std::nullopt;
  std::string_view rest = trimmed(argument.substr(end));
  if (!rest.empty() && !equals(rest, "LAST")) return std::nullopt;
  return BdatCommand{*size, !rest.empty()};
}

}  // namespace holdfast::proxy
