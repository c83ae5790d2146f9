#include "proxy/imap_format.h"

#include <fmt/format.h>

#include <algorithm>
#include <ctime>

#include "proxy/fold.h"

namespace holdfast::proxy {
namespace {

constexpr std::size_t longest_quoted = 1000;

/// Names and parameters are UTF-8 here; on the wire they are encoded words where they are not ASCII.
std::string encoded(const std::string& text) { return is_printable_ascii(text) ? text : encode_header_text(text); }

std::string addresses(std::string_view header, std::string_view field) {
  std::string list;
  for (const MailAddress& one : parse_addresses(address_field_of(header, field))) {
    // The name of a group stands in the place of a local part; a local part is no text to encode (RFC 2047 5), or an answer would not arrive.
    bool is_group = one.host.empty();
    list += fmt::format("({} NIL {} {})", imap_nstring(encoded(one.name)), imap_nstring(is_group ? encoded(one.mailbox) : one.mailbox),
                        imap_nstring(one.host));
  }
  return list.empty() ? "NIL" : "(" + list + ")";
}

std::string parameter_list(const std::vector<std::pair<std::string, std::string>>& all) {
  if (all.empty()) return "NIL";
  std::string list;
  for (const auto& [name, value] : all)
    list += fmt::format("{}{} {}", list.empty() ? "" : " ", imap_string(encoded(name)), imap_string(encoded(value)));
  return "(" + list + ")";
}

/// Content-Language: one, or a list in parentheses.
std::string languages(const std::string& value) {
  std::string list;
  std::size_t count = 0;
  for (std::size_t at = 0; at <= value.size(); ++count) {
    std::size_t end = std::min(value.find(',', at), value.size());
    std::size_t first = std::min(value.find_first_not_of(" \t", at), end);
    std::size_t last = value.find_last_not_of(" \t", end == 0 ? 0 : end - 1);
    list += (count > 0 ? " " : "") + imap_string(first < end ? value.substr(first, last + 1 - first) : "");
    at = end + 1;
  }
  return count > 1 ? "(" + list + ")" : imap_nstring(value);
}

/// RFC 2045 5.2: text whose charset is not named is US-ASCII.
std::string type_parameters(const MimePart& part) {
  auto all = part.parameters;
  bool has_charset = std::any_of(all.begin(), all.end(), [](const auto& one) { return is_same_name(one.first, "charset"); });
  if (part.type == "text" && !has_charset) all.emplace_back("charset", "us-ascii");
  return parameter_list(all);
}

std::string disposition(const MimePart& part) {
  if (part.disposition.empty()) return "NIL";
  return fmt::format("({} {})", imap_string(part.disposition), parameter_list(part.disposition_parameters));
}

std::size_t lines_of(std::string_view text) { return static_cast<std::size_t>(std::count(text.begin(), text.end(), '\n')); }

/// The message in a part of type message/rfc822. One that is encoded, or nested too deeply, is not looked into: an empty one then.
const MimePart* message_in(const MimePart& part) {
  static const MimePart unread;
  if (part.type != "message" || part.subtype != "rfc822") return nullptr;
  return part.is_message() ? &part.children.front() : &unread;
}

const MimePart* find_part(const MimePart& root, const std::vector<std::uint32_t>& path) {
  const MimePart* part = &root;
  bool is_named = false;  // by its own number: a message in it is entered by the next one, and a leaf has no more parts
  for (std::uint32_t number : path) {
    if (is_named) {
      part = message_in(*part);
      if (!part) return nullptr;
      is_named = false;
    }
    if (part->is_multipart()) {
      if (number > part->children.size()) return nullptr;
      part = &part->children[number - 1];
      is_named = !part->is_multipart();
    } else {
      if (number != 1) return nullptr;  // what has no parts is its own part 1
      is_named = true;
    }
  }
  return part;
}

std::string fields(std::string_view header, const BodySection& section) {
  std::string chosen;
  bool is_wanted_listed = section.what == BodySection::What::fields;
  each_field(header, [&](std::string_view name, std::string_view field) {
    bool is_listed = std::any_of(section.fields.begin(), section.fields.end(), [&](const std::string& one) { return is_same_name(one, name); });
    if (is_listed == is_wanted_listed) chosen += field;
  });
  if (!chosen.empty() && !chosen.ends_with('\n')) chosen += "\r\n";
  return chosen + "\r\n";
}

}  // namespace

std::string imap_literal(std::string_view bytes) { return fmt::format("{{{}}}\r\n{}", bytes.size(), bytes); }

std::string imap_string(std::string_view text) {
  if (text.size() > longest_quoted || !is_printable_ascii(text)) return imap_literal(text);
  std::string quoted = "\"";
  for (char c : text) {
    if (c == '"' || c == '\\') quoted += '\\';
    quoted += c;
  }
  return quoted + "\"";
}

std::string imap_nstring(std::string_view text) { return text.empty() ? "NIL" : imap_string(text); }

std::string imap_envelope(std::string_view header) {
  // RFC 3501 7.4.2: a field that is not there is NIL, an empty one is the empty string.
  auto text = [&](std::string_view name) {
    bool is_there = false;
    each_field(header, [&](std::string_view one, std::string_view) { is_there |= is_same_name(one, name); });
    return is_there ? imap_string(field_of(header, name)) : "NIL";
  };
  std::string from = addresses(header, "From"), sender = addresses(header, "Sender"), reply_to = addresses(header, "Reply-To");
  return fmt::format("({} {} {} {} {} {} {} {} {} {})", text("Date"), text("Subject"), from, sender == "NIL" ? from : sender,
                     reply_to == "NIL" ? from : reply_to, addresses(header, "To"), addresses(header, "Cc"), addresses(header, "Bcc"),
                     text("In-Reply-To"), text("Message-ID"));
}

std::string imap_structure(std::string_view message, const MimePart& part, bool is_extended) {
  std::string out = "(";
  if (part.is_multipart()) {
    for (const MimePart& child : part.children) out += imap_structure(message, child, is_extended);
    out += " " + imap_string(part.subtype);
    if (is_extended)
      out += fmt::format(" {} {} {} {}", parameter_list(part.parameters), disposition(part), languages(part.language), imap_nstring(part.location));
    return out + ")";
  }
  out += fmt::format("{} {} {} {} {} {} {}", imap_string(part.type), imap_string(part.subtype), type_parameters(part), imap_nstring(part.id),
                     imap_nstring(part.description), imap_string(part.encoding), part.body.size());
  if (const MimePart* inner = message_in(part)) {
    out += fmt::format(" {} {} {}", imap_envelope(inner->header.of(message)), imap_structure(message, *inner, is_extended),
                       lines_of(part.body.of(message)));
  } else if (part.type == "text") {
    out += fmt::format(" {}", lines_of(part.body.of(message)));
  }
  if (is_extended)
    out += fmt::format(" {} {} {} {}", imap_nstring(part.md5), disposition(part), languages(part.language), imap_nstring(part.location));
  return out + ")";
}

Range partial_of(Range range, const BodySection& section) {
  if (!section.partial) return range;
  auto [first, count] = *section.partial;
  range.begin += std::min<std::uint64_t>(first, range.size());
  range.end = range.begin + std::min<std::uint64_t>(count, range.size());
  return range;
}

std::optional<SectionOctets> imap_section(std::string_view message, const MimePart& root, const BodySection& section) {
  const MimePart* part = find_part(root, section.part);
  if (!part) return std::nullopt;
  bool is_whole = section.part.empty();
  using What = BodySection::What;
  // HEADER and TEXT of a part are those of the message that it holds.
  const MimePart* inner = is_whole ? part : message_in(*part);
  if (section.what == What::all) return SectionOctets{partial_of(is_whole ? Range{0, message.size()} : part->body, section), {}};
  if (section.what == What::mime) return SectionOctets{partial_of(part->header, section), {}};
  if (!inner) return std::nullopt;
  if (section.what == What::header) return SectionOctets{partial_of(inner->header, section), {}};
  if (section.what == What::text) return SectionOctets{partial_of(inner->body, section), {}};
  std::string chosen = fields(inner->header.of(message), section);
  return SectionOctets{{}, std::string(partial_of({0, chosen.size()}, section).of(chosen))};
}

std::string imap_date(std::int64_t time_us) {
  std::time_t seconds = static_cast<std::time_t>(time_us / 1000000);
  std::tm parts{};
  gmtime_r(&seconds, &parts);
  constexpr const char* months[] = {"Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
  return fmt::format("\"{:2}-{}-{:04} {:02}:{:02}:{:02} +0000\"", parts.tm_mday, months[parts.tm_mon], parts.tm_year + 1900, parts.tm_hour,
                     parts.tm_min, parts.tm_sec);
}

}  // namespace holdfast::proxy
