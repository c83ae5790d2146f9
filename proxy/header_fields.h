// What a journal entry shows of a message's own header: Message-ID and Subject. Sans I/O.
#pragma once

#include <string>
#include <string_view>

namespace holdfast::proxy {

struct HeaderFields {
  std::string message_id;  ///< without angle brackets
  std::string subject;     ///< unfolded, as written (RFC 2047 words not decoded)
};

/// Looks through the header at the start of content; stops at the first empty line. The first field of each name counts.
/// Values longer than 998 bytes are cut.
HeaderFields read_header_fields(std::string_view content);

}  // namespace holdfast::proxy
