#include "proxy/imap_search.h"

#include <algorithm>

#include "proxy/fold.h"

namespace holdfast::proxy {
namespace {

using Kind = SearchKey::Kind;

/// needle is folded. ASCII needs no more than ASCII's folding, which is much faster.
bool contains(std::string_view text, const std::string& needle) {
  if (needle.empty()) return true;
  return (is_ascii(needle) ? fold_ascii(text) : fold(text)).find(needle) != std::string::npos;
}

std::string decoded_value(std::string_view field) {
  std::string value;
  for (char c : field.substr(field.find(':') + 1))
    if (c != '\r' && c != '\n' && c != '\0') value += c;
  return decode_header_text(value);
}

bool has_in_fields(std::string_view header, std::string_view name, const std::string& needle) {
  bool is_found = false;
  each_field(header.substr(0, longest_header_read), [&](std::string_view field_name, std::string_view field) {
    if (is_found || (!name.empty() && !is_same_name(field_name, name))) return;
    is_found = contains(decoded_value(field.substr(0, longest_field_value)), needle);
  });
  return is_found || (name.empty() && contains(header, needle));
}

bool has_in_body(std::string_view message, const MimePart& part, const std::string& needle) {
  if (part.is_multipart() || part.is_message())
    return std::any_of(part.children.begin(), part.children.end(), [&](const MimePart& child) {
      return has_in_body(message, child, needle) || (part.is_message() && has_in_fields(child.header.of(message), "", needle));
    });
  bool is_readable = part.type == "text" || part.type == "message";  // message/delivery-status and the like
  return is_readable && contains(decode_body(message, part), needle);
}

/// In what describes a message's parts: the names of attachments above all, encoded or not.
bool has_in_part_headers(std::string_view message, const MimePart& part, const std::string& needle) {
  auto has = [&](const auto& parameters) {
    return std::any_of(parameters.begin(), parameters.end(), [&](const auto& one) { return contains(one.second, needle); });
  };
  return has(part.parameters) || has(part.disposition_parameters) ||
         std::any_of(part.children.begin(), part.children.end(), [&](const MimePart& child) {
           return has_in_fields(child.header.of(message), "", needle) || has_in_part_headers(message, child, needle);
         });
}

constexpr std::int64_t day_s = 86400;

/// The day that the Date field names, in its own time zone; the day of arrival where there is none.
std::int64_t sent_day(ReadMessage& message) {
  std::optional<MailDate> date = parse_mail_date(field_of(message.header(), "Date"));
  std::int64_t seconds = date ? date->utc_s + date->offset_s : message.stored().date_us / 1000000;
  return seconds / day_s * day_s;
}

}  // namespace

std::string_view ReadMessage::header() {
  if (!is_read_) text_ = load_(false);
  is_read_ = true;
  return header_of(text_).of(text_);
}

const std::string& ReadMessage::content() {
  if (!is_whole_) text_ = load_(true);
  is_read_ = is_whole_ = true;
  return text_;
}

const MimePart& ReadMessage::structure() {
  if (!structure_) structure_ = parse_mime(content());
  return *structure_;
}

SearchKey folded(SearchKey key) {
  key.text = fold(key.text);
  for (SearchKey& child : key.children) child = folded(std::move(child));
  return key;
}

bool matches(const SearchKey& key, ReadMessage& message, std::uint32_t number, const SearchScope& scope) {
  const failover::StoredMessage& stored = message.stored();
  std::int64_t arrival = stored.date_us / 1000000, arrival_day = arrival / day_s * day_s;
  auto now_minus = [&](std::uint64_t seconds) { return scope.now_s - static_cast<std::int64_t>(std::min<std::uint64_t>(seconds, 1ULL << 40)); };
  switch (key.kind) {
    case Kind::all: return true;
    case Kind::nothing: return false;
    case Kind::sequence: return key.set.contains(number, scope.largest_number);
    case Kind::uid: return key.set.contains(stored.uid, scope.largest_uid);
    case Kind::flag: return (stored.flags & key.flag) != 0;
    case Kind::no_flag: return (stored.flags & key.flag) == 0;
    case Kind::keyword:
    case Kind::no_keyword: {
      bool has = std::any_of(stored.keywords.begin(), stored.keywords.end(), [&](const std::string& one) { return is_same_name(one, key.text); });
      return has == (key.kind == Kind::keyword);
    }
    case Kind::before: return arrival_day < key.date;
    case Kind::on: return arrival_day == key.date;
    case Kind::since: return arrival_day >= key.date;
    case Kind::sent_before: return sent_day(message) < key.date;
    case Kind::sent_on: return sent_day(message) == key.date;
    case Kind::sent_since: return sent_day(message) >= key.date;
    case Kind::younger: return arrival >= now_minus(key.number);
    case Kind::older: return arrival <= now_minus(key.number);
    case Kind::larger: return stored.size > key.number;
    case Kind::smaller: return stored.size < key.number;
    case Kind::modseq: return stored.modseq >= key.number;
    case Kind::header: return has_in_fields(message.header(), key.field, key.text);
    case Kind::body: return has_in_body(message.content(), message.structure(), key.text);
    case Kind::text:
      return has_in_fields(message.header(), "", key.text) || has_in_body(message.content(), message.structure(), key.text) ||
             has_in_part_headers(message.content(), message.structure(), key.text);
    case Kind::negation: return !matches(key.children.front(), message, number, scope);
    case Kind::either: return matches(key.children[0], message, number, scope) || matches(key.children[1], message, number, scope);
    case Kind::both:
      return std::all_of(key.children.begin(), key.children.end(), [&](const SearchKey& child) { return matches(child, message, number, scope); });
  }
  return false;
}

}  // namespace holdfast::proxy
