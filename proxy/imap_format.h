// What IMAP answers are made of: strings, ENVELOPE, BODYSTRUCTURE, BODY[...] (RFC 3501 7.4.2). Sans I/O.
#pragma once

#include <string>
#include <string_view>

#include "proxy/imap_command.h"
#include "proxy/mime.h"

namespace holdfast::proxy {

/// Quoted, or as a literal where it must be.
std::string imap_string(std::string_view text);
/// NIL for an empty one.
std::string imap_nstring(std::string_view text);
std::string imap_literal(std::string_view bytes);

std::string imap_envelope(std::string_view header);
/// is_extended: BODYSTRUCTURE rather than BODY.
std::string imap_structure(std::string_view message, const MimePart& part, bool is_extended);
/// What a section means: octets of the message as they are, or fields chosen from a header.
struct SectionOctets {
  Range range;                        ///< in the message
  std::optional<std::string> fields;  ///< instead
  std::string_view of(std::string_view message) const { return fields ? *fields : range.of(message); }
};
/// Nothing when there is no such part.
std::optional<SectionOctets> imap_section(std::string_view message, const MimePart& root, const BodySection& section);
/// As much of the range as a partial section ("<0.1000>") asks for.
Range partial_of(Range range, const BodySection& section);

/// "25-Nov-2026 10:00:00 +0000", quoted.
std::string imap_date(std::int64_t time_us);

}  // namespace holdfast::proxy
