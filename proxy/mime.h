// The MIME structure of a message, as octet ranges: what IMAP's BODYSTRUCTURE and BODY[...] speak of (RFC
// 2045, 2046).
//
// Where parts begin and end is found here, since IMAP wants the octets as they are; what header fields mean
// (types, parameters, addresses, encoded words, charsets) is GMime's. Bounded in depth, in the number of parts and in what is
// taken of a field: what is nested deeper is a leaf. Sans I/O; hostile input gives some structure, never an error, in a time that
// grows with its size and no faster.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "journal/result.h"

namespace holdfast::proxy {

struct Range {
  std::size_t begin = 0, end = 0;
  std::string_view of(std::string_view text) const { return text.substr(begin, end - begin); }
  std::size_t size() const { return end - begin; }
};

struct MimePart {
  Range header;  ///< with the empty line that ends it
  Range body;
  std::string type = "text", subtype = "plain";                 ///< in lower case
  std::vector<std::pair<std::string, std::string>> parameters;  ///< values in UTF-8
  std::string id, description, encoding = "7bit", md5, disposition, language, location;
  std::vector<std::pair<std::string, std::string>> disposition_parameters;
  std::vector<MimePart> children;  ///< of a multipart; or the one message in a message/rfc822

  bool is_multipart() const { return type == "multipart" && !children.empty(); }
  bool is_message() const { return type == "message" && !children.empty(); }
};

/// The structure of a whole message.
MimePart parse_mime(std::string_view message);

/// The range of the header at the start of the text, with its empty line.
Range header_of(std::string_view text);
/// Calls visit with each field's name and its whole lines, line ends included.
template <class Visit>
void each_field(std::string_view header, Visit visit) {
  while (!header.empty() && header.front() != '\r' && header.front() != '\n') {
    std::size_t end = 0;
    do {
      end = header.find('\n', end);
      end = end == std::string_view::npos ? header.size() : end + 1;
    } while (end < header.size() && (header[end] == ' ' || header[end] == '\t'));
    std::string_view field = header.substr(0, end);
    std::size_t colon = field.find(':');
    if (colon != std::string_view::npos) {
      std::string_view name = field.substr(0, colon);
      while (!name.empty() && (name.back() == ' ' || name.back() == '\t')) name.remove_suffix(1);
      visit(name, field);
    }
    header.remove_prefix(end);
  }
}
/// Of a header no more than its begin is looked into, and of a field no more is taken, by what reads a field's meaning.
constexpr std::size_t longest_header_read = 1024 * 1024, longest_field_value = 128 * 1024;
/// The first field of that name, unfolded, without its name; empty when there is none.
std::string field_of(std::string_view header, std::string_view name);
/// The addresses of all fields of that name, as one list: RFC 5322 wants one field, but not all senders do.
std::string address_field_of(std::string_view header, std::string_view name);
bool is_same_name(std::string_view a, std::string_view b);  ///< ASCII, ignoring case

/// Loads what reads header fields. Otherwise that is done when the first is read; where it is missing then, the process ends with a message.
Status load_mime();

/// Encoded words and raw 8-bit text, to UTF-8.
std::string decode_header_text(const std::string& raw);
/// UTF-8 to encoded words (RFC 2047), where it has to be, on one line.
std::string encode_header_text(const std::string& text);

struct MailDate {
  std::int64_t utc_s = 0;     ///< since 1970
  std::int64_t offset_s = 0;  ///< of the time zone in which it is written, east of UTC
};
/// A Date field's value (RFC 5322 3.3); nothing when it is none.
std::optional<MailDate> parse_mail_date(const std::string& value);
/// A part's content, its transfer encoding undone, and, for text, in UTF-8.
std::string decode_body(std::string_view message, const MimePart& part);

struct MailAddress {
  std::string name;           ///< UTF-8
  std::string mailbox, host;  ///< the local part without quotes; host empty: the begin of a group with that name; both empty: its end
};
/// An address list field's value (RFC 5322 3.4). One with more than a thousand colons, as it takes to nest groups so deep (which RFC 5322
/// does not have), is not read: it is one name without an address.
std::vector<MailAddress> parse_addresses(const std::string& value);

}  // namespace holdfast::proxy
