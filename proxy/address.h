// Envelope addresses: where a path ends and whether it can mean only one thing (RFC 5321 4.1.2). Sans I/O.
//
// Which addresses exist is the primary's business. Here a path is refused only when it could be read in two ways:
// unbalanced brackets or quotes, specials outside quotes.
#pragma once

#include <optional>
#include <string_view>

namespace holdfast::proxy {

struct Path {
  std::string_view address;  ///< without the angle brackets and a source route; empty for <>
  std::string_view rest;     ///< what follows the path, leading blanks removed
};

/// Reads a path at the start of text: `<local@domain>`, `<>`, or, as many servers take it, the same without brackets. A source
/// route (`<@relay,@other:local@domain>`) is recognised and left out, as RFC 5321 4.1.1.3 has it.
/// Leading blanks are skipped. The local part may be quoted, the domain missing or a literal. Bytes above 127 pass (the
/// caller has checked that they are UTF-8). Returns nothing for what can be read in two ways.
std::optional<Path> parse_path(std::string_view text);

/// The domain of an address, without the at sign; empty when there is none.
std::string_view domain_of(std::string_view address);

/// Whether it can be a domain or an address literal (RFC 5321 4.1.2, with underscores, a last dot and UTF-8 besides): no label is empty,
/// longer than 63 bytes, or begins or ends with a hyphen. To be asked where nobody else will be for a while.
bool is_domain(std::string_view text);

/// True for well-formed UTF-8 (RFC 3629: no overlong forms, no surrogates).
bool is_utf8(std::string_view text);

}  // namespace holdfast::proxy
