// SMTP commands as clients send them (RFC 5321 4.1). Sans I/O.
//
// Only what Holdfast must understand is parsed: the verb, the envelope, BDAT's numbers. The line itself is forwarded as it came.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace holdfast::proxy {

enum class Verb { helo, ehlo, mail, rcpt, data, bdat, rset, noop, vrfy, expn, help, quit, starttls, auth, etrn, forbidden, unknown };

struct Command {
  Verb verb = Verb::unknown;
  std::string_view verb_text;  ///< as written
  std::string_view argument;   ///< what follows the verb, blanks trimmed at both ends
};

/// Splits a line (without its CRLF) into verb and argument. Verbs that would give the client rights that only Holdfast has
/// at the primary (XCLIENT, XFORWARD), or that change who talks or how (TURN, ATRN, BURL, XEXCH50 and the like), are `forbidden`.
Command parse_command(std::string_view line);

/// Why a line that ends in LF is none that SMTP knows (RFC 5321 2.3.8): "bare <LF>" or "bare <CR>"; empty when it is well.
std::string_view fault_of_line_end(std::string_view line);

/// Why a command (line without its CRLF) could mean one thing here and another at the next server; empty when it is well. 8-bit text is
/// allowed in envelopes when has_smtputf8 (RFC 6531 3.3).
std::string_view fault_of(const Command& command, std::string_view line, bool has_smtputf8);

/// One ESMTP parameter: `KEY` or `KEY=value`.
struct Parameter {
  std::string key;  ///< in upper case
  std::string_view value;
  std::string_view text;  ///< all of it, as written
};

/// A MAIL or RCPT command's argument.
struct EnvelopeCommand {
  std::string_view address;  ///< without angle brackets
  std::string_view params;   ///< as written
  std::vector<Parameter> parameters;
};

/// Parses `FROM:<path> params` (with "FROM:") or `TO:<path> params` (RFC 5321 4.1.1.2, 4.1.1.3).
/// Returns nothing when it is malformed or ambiguous.
std::optional<EnvelopeCommand> parse_envelope(std::string_view argument, std::string_view prefix);

/// BDAT's argument: a size in bytes and `LAST` (RFC 3030 2).
struct BdatCommand {
  std::uint64_t size;
  bool is_last;
};
/// Returns nothing for what is not digits, does not fit in 18 digits, or has something else behind it.
std::optional<BdatCommand> parse_bdat(std::string_view argument);

/// A decimal number of at most 18 digits, or nothing.
std::optional<std::uint64_t> parse_number(std::string_view digits);

std::string upper(std::string_view text);

}  // namespace holdfast::proxy
