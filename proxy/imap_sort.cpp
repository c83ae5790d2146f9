#include "proxy/imap_sort.h"

#include <algorithm>

#include "proxy/fold.h"

namespace holdfast::proxy {
namespace {

void strip_blanks(std::string_view& left) { left.remove_prefix(std::min(left.find_first_not_of(' '), left.size())); }

/// "[list] "
bool strip_blob(std::string_view& left) {
  if (!left.starts_with('[')) return false;
  std::size_t end = left.find_first_of("[]", 1);
  if (end == std::string_view::npos || left[end] != ']') return false;
  left.remove_prefix(end + 1);
  strip_blanks(left);
  return true;
}

/// "re: ", "fwd [list]: "; and "aw: " and "wg: ", as they are called in German.
bool strip_reply(std::string_view& left) {
  std::string_view rest = left;
  for (std::string_view word : {"re", "fwd", "fw", "aw", "wg"}) {
    if (!rest.starts_with(word)) continue;
    rest.remove_prefix(word.size());
    strip_blanks(rest);
    strip_blob(rest);
    if (!rest.starts_with(':')) return false;
    rest.remove_prefix(1);
    strip_blanks(rest);
    left = rest;
    return true;
  }
  return false;
}

/// "(fwd)"
bool strip_trailer(std::string_view& left) {
  while (left.ends_with(' ')) left.remove_suffix(1);
  if (!left.ends_with("(fwd)")) return false;
  left.remove_suffix(5);
  return true;
}

/// The subject without what replying, forwarding and lists put around it (RFC 5256 2.1).
std::string base_subject(const std::string& subject, bool& is_reply) {
  std::string text;
  for (char c : subject)
    if (!(c == ' ' || c == '\t') || (!text.empty() && text.back() != ' ')) text += c == '\t' ? ' ' : c;
  std::string_view left = text;
  for (;;) {
    while (strip_trailer(left)) is_reply = true;
    strip_blanks(left);
    std::string_view last_blob, behind = left;
    for (bool is_leader = true; is_leader;) {
      std::string_view before = behind;
      is_leader = strip_blob(behind);
      if (is_leader) {
        last_blob = before;
      } else if (strip_reply(behind)) {
        is_leader = is_reply = true;
        last_blob = {};
      }
    }
    left = behind.empty() ? last_blob : behind;
    if (!left.starts_with("[fwd:") || !left.ends_with(']')) return std::string(left);
    left = left.substr(5, left.size() - 6);
    is_reply = true;
  }
}

/// Of one message: a thousand messages from somebody hostile must not be a million references.
constexpr std::size_t most_references = 100;

/// RFC 5256 counts valid ones only: those with an @ (RFC 5322 3.6.4).
std::vector<std::string> message_ids(std::string_view text) {
  std::vector<std::string> ids;
  for (std::size_t at = 0; (at = text.find('<', at)) != std::string_view::npos;) {
    std::size_t end = text.find('>', at);
    if (end == std::string_view::npos || ids.size() >= most_references) break;
    std::string_view id = text.substr(at, end - at + 1);
    if (id.find('@') != std::string_view::npos) ids.emplace_back(id);
    at = end;
  }
  return ids;
}

/// As RFC 5051 orders text: by its capitals, so that "_" comes after letters.
std::string sort_key(std::string_view text) { return upper_ascii(fold(text)); }

}  // namespace

SortFacts sort_facts(ReadMessage& message, std::uint32_t number) {
  SortFacts facts;
  facts.number = number;
  facts.arrival_us = message.stored().date_us;
  facts.size = message.stored().size;
  std::string_view header = message.header();
  facts.sent_s = facts.arrival_us / 1000000;
  if (std::optional<MailDate> date = parse_mail_date(field_of(header, "Date"))) facts.sent_s = date->utc_s;
  facts.subject = upper_ascii(base_subject(fold(decode_header_text(field_of(header, "Subject"))), facts.is_reply));
  auto first_mailbox = [&](std::string_view field) {
    for (const MailAddress& one : parse_addresses(field_of(header, field)))
      if (!one.mailbox.empty()) return sort_key(one.mailbox);
    return std::string();
  };
  facts.from = first_mailbox("From");
  facts.to = first_mailbox("To");
  facts.cc = first_mailbox("Cc");
  std::vector<std::string> own = message_ids(field_of(header, "Message-ID"));
  if (!own.empty()) facts.message_id = own.front();
  facts.references = message_ids(field_of(header, "References"));
  if (facts.references.empty()) {
    facts.references = message_ids(field_of(header, "In-Reply-To"));
    if (facts.references.size() > 1) facts.references.resize(1);
  }
  return facts;
}

void sort_messages(std::vector<SortFacts>& all, const std::vector<std::pair<SortCommand::By, bool>>& criteria) {
  using By = SortCommand::By;
  auto compare = [](By by, const SortFacts& a, const SortFacts& b) {
    auto order = [](const auto& x, const auto& y) { return x < y ? -1 : y < x ? 1 : 0; };
    switch (by) {
      case By::arrival: return order(a.arrival_us, b.arrival_us);
      case By::cc: return order(a.cc, b.cc);
      case By::date: return order(a.sent_s, b.sent_s);
      case By::from: return order(a.from, b.from);
      case By::size: return order(a.size, b.size);
      case By::subject: return order(a.subject, b.subject);
      case By::to: return order(a.to, b.to);
    }
    return 0;
  };
  std::sort(all.begin(), all.end(), [&](const SortFacts& a, const SortFacts& b) {
    for (auto [by, is_reverse] : criteria)
      if (int order = compare(by, a, b)) return is_reverse ? order > 0 : order < 0;
    return a.number < b.number;
  });
}

}  // namespace holdfast::proxy
