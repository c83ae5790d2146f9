#include "journal/record.h"

#include <fmt/format.h>

#include <charconv>
#include <chrono>

#include "journal/bytes.h"

namespace holdfast::journal {
namespace {

constexpr std::string_view outcome_names[] = {"pending", "forwarded", "held",    "delivered", "rejected", "deferred",
                                              "bounced", "expired",   "dropped", "erased",    "abandoned"};

std::optional<Outcome> outcome_of(std::uint8_t value) {
  if (value >= std::size(outcome_names)) return std::nullopt;
  return static_cast<Outcome>(value);
}

}  // namespace

std::string_view to_string(Outcome outcome) { return outcome_names[static_cast<std::size_t>(outcome)]; }

std::string_view to_string(Direction direction) { return direction == Direction::inbound ? "inbound" : "outbound"; }

std::optional<Outcome> parse_outcome(std::string_view name) {
  for (std::size_t i = 0; i < std::size(outcome_names); ++i)
    if (outcome_names[i] == name) return static_cast<Outcome>(i);
  return std::nullopt;
}

void bring_up_to_date(std::vector<Recipient>& recipients, const OutcomeRecord& outcome) {
  for (const OutcomeRecord::Change& change : outcome.changes) {
    for (std::size_t i = 0; i < recipients.size(); ++i) {
      bool is_meant = change.recipient == OutcomeRecord::every_pending ? recipients[i].outcome == Outcome::pending : change.recipient == i;
      if (!is_meant) continue;
      recipients[i].outcome = change.outcome;
      recipients[i].reply = change.reply;
    }
  }
}

std::string encode(const MessageRecord& record) {
  ByteWriter out;
  out.integer(record.time_us);
  out.integer(static_cast<std::uint8_t>(record.direction));
  for (const std::string* text : {&record.session, &record.route, &record.client, &record.server, &record.helo, &record.protocol, &record.tls,
                                  &record.auth, &record.mail_from, &record.mail_params})
    out.string(*text);
  out.integer(static_cast<std::uint32_t>(record.recipients.size()));
  for (const Recipient& recipient : record.recipients) {
    out.string(recipient.address);
    out.string(recipient.params);
    out.string(recipient.reply);
    out.integer(static_cast<std::uint8_t>(recipient.outcome));
  }
  out.integer(record.size);
  out.raw(view(record.content_hash));
  out.raw({record.content_id.data(), record.content_id.size()});
  out.string(record.message_id);
  out.string(record.subject);
  return out.take();
}

std::optional<MessageRecord> decode_message(std::string_view bytes) {
  ByteReader in(bytes);
  MessageRecord record;
  record.time_us = in.integer<std::int64_t>();
  auto direction = in.integer<std::uint8_t>();
  if (direction > static_cast<std::uint8_t>(Direction::outbound)) return std::nullopt;
  record.direction = static_cast<Direction>(direction);
  for (std::string* text : {&record.session, &record.route, &record.client, &record.server, &record.helo, &record.protocol, &record.tls, &record.auth,
                            &record.mail_from, &record.mail_params})
    *text = in.string();
  auto count = in.integer<std::uint32_t>();
  for (std::uint32_t i = 0; i < count && in.ok(); ++i) {
    Recipient recipient;
    recipient.address = in.string();
    recipient.params = in.string();
    recipient.reply = in.string();
    std::optional<Outcome> outcome = outcome_of(in.integer<std::uint8_t>());
    if (!outcome) return std::nullopt;
    recipient.outcome = *outcome;
    record.recipients.push_back(std::move(recipient));
  }
  record.size = in.integer<std::uint64_t>();
  record.content_hash = in.array<Hash>();
  record.content_id = in.array<ContentId>();
  record.message_id = in.string();
  record.subject = in.string();
  if (!in.ok() || !in.at_end()) return std::nullopt;
  return record;
}

std::string encode(const OutcomeRecord& record) {
  ByteWriter out;
  out.integer(record.time_us);
  out.integer(record.entry);
  out.integer(static_cast<std::uint8_t>(record.is_possible_duplicate));
  out.integer(static_cast<std::uint32_t>(record.changes.size()));
  for (const OutcomeRecord::Change& change : record.changes) {
    out.integer(change.recipient);
    out.integer(static_cast<std::uint8_t>(change.outcome));
    out.string(change.reply);
  }
  return out.take();
}

std::optional<OutcomeRecord> decode_outcome(std::string_view bytes) {
  ByteReader in(bytes);
  OutcomeRecord record;
  record.time_us = in.integer<std::int64_t>();
  record.entry = in.integer<RecordId>();
  auto duplicate = in.integer<std::uint8_t>();
  if (duplicate > 1) return std::nullopt;
  record.is_possible_duplicate = duplicate == 1;
  auto count = in.integer<std::uint32_t>();
  for (std::uint32_t i = 0; i < count && in.ok(); ++i) {
    auto recipient = in.integer<std::uint32_t>();
    std::optional<Outcome> outcome = outcome_of(in.integer<std::uint8_t>());
    if (!outcome) return std::nullopt;
    record.changes.push_back({recipient, *outcome, std::string(in.string())});
  }
  if (!in.ok() || !in.at_end()) return std::nullopt;
  return record;
}

std::string encode(const StateRecord& record) {
  ByteWriter out;
  out.integer(record.time_us);
  out.string(record.route);
  out.integer(record.state);
  out.integer(record.mode);
  out.string(record.by);
  out.string(record.reason);
  return out.take();
}

std::optional<StateRecord> decode_state(std::string_view bytes) {
  ByteReader in(bytes);
  StateRecord record;
  record.time_us = in.integer<std::int64_t>();
  record.route = in.string();
  record.state = in.integer<std::uint8_t>();
  record.mode = in.integer<std::uint8_t>();
  record.by = in.string();
  record.reason = in.string();
  if (!in.ok() || !in.at_end()) return std::nullopt;
  return record;
}

std::string encode(const ErasureRecord& record) {
  ByteWriter out;
  out.integer(record.time_us);
  out.string(record.by);
  out.string(record.reason);
  out.integer(static_cast<std::uint32_t>(record.records.size()));
  for (RecordId id : record.records) out.integer(id);
  return out.take();
}

std::optional<ErasureRecord> decode_erasure(std::string_view bytes) {
  ByteReader in(bytes);
  ErasureRecord record;
  record.time_us = in.integer<std::int64_t>();
  record.by = in.string();
  record.reason = in.string();
  auto count = in.integer<std::uint32_t>();
  for (std::uint32_t i = 0; i < count && in.ok(); ++i) record.records.push_back(in.integer<RecordId>());
  if (!in.ok() || !in.at_end()) return std::nullopt;
  return record;
}

std::string encode(const AccessRecord& record) {
  ByteWriter out;
  out.integer(record.time_us);
  out.string(record.by);
  out.string(record.command);
  out.string(record.reason);
  out.integer(record.entries);
  out.integer(static_cast<std::uint32_t>(record.examples.size()));
  for (RecordId id : record.examples) out.integer(id);
  return out.take();
}

std::optional<AccessRecord> decode_access(std::string_view bytes) {
  ByteReader in(bytes);
  AccessRecord record;
  record.time_us = in.integer<std::int64_t>();
  record.by = in.string();
  record.command = in.string();
  record.reason = in.string();
  record.entries = in.integer<std::uint64_t>();
  auto count = in.integer<std::uint32_t>();
  for (std::uint32_t i = 0; i < count && in.ok(); ++i) record.examples.push_back(in.integer<RecordId>());
  if (!in.ok() || !in.at_end()) return std::nullopt;
  return record;
}

std::string encode(const LegalHoldRecord& record) {
  ByteWriter out;
  out.integer(record.time_us);
  out.integer(static_cast<std::uint8_t>(record.is_set));
  for (const std::string* text : {&record.name, &record.by, &record.reason, &record.sender, &record.recipient, &record.message_id}) out.string(*text);
  out.integer(record.since_us);
  out.integer(record.until_us);
  out.integer(static_cast<std::uint32_t>(record.entries.size()));
  for (RecordId id : record.entries) out.integer(id);
  return out.take();
}

std::optional<LegalHoldRecord> decode_legal_hold(std::string_view bytes) {
  ByteReader in(bytes);
  LegalHoldRecord record;
  record.time_us = in.integer<std::int64_t>();
  auto is_set = in.integer<std::uint8_t>();
  if (is_set > 1) return std::nullopt;
  record.is_set = is_set == 1;
  for (std::string* text : {&record.name, &record.by, &record.reason, &record.sender, &record.recipient, &record.message_id}) *text = in.string();
  record.since_us = in.integer<std::int64_t>();
  record.until_us = in.integer<std::int64_t>();
  auto count = in.integer<std::uint32_t>();
  for (std::uint32_t i = 0; i < count && in.ok(); ++i) record.entries.push_back(in.integer<RecordId>());
  if (!in.ok() || !in.at_end()) return std::nullopt;
  return record;
}

namespace {

constexpr std::string_view prune_opening = "segment ", emptying_opening = "mail of segment ";

ErasureRecord of_segment(std::string_view opening, std::uint32_t segment, const std::string& by, const std::string& reason) {
  return {now_us(), by, fmt::format("{}{}, {}", opening, segment, reason), {}};
}

std::optional<std::uint32_t> segment_of(std::string_view opening, const ErasureRecord& record) {
  if (!record.records.empty() || !record.reason.starts_with(opening)) return std::nullopt;
  const char* begin = record.reason.data() + opening.size();
  const char* end = record.reason.data() + record.reason.size();
  std::uint32_t number = 0;
  auto [behind, problem] = std::from_chars(begin, end, number);
  bool is_one = problem == std::errc() && behind != end && *behind == ',';
  return is_one ? std::optional(number) : std::nullopt;
}

}  // namespace

ErasureRecord prune_record(std::uint32_t segment, const std::string& by, const std::string& reason) {
  return of_segment(prune_opening, segment, by, reason);
}

std::optional<std::uint32_t> pruned_segment(const ErasureRecord& record) { return segment_of(prune_opening, record); }

ErasureRecord emptying_record(std::uint32_t segment, const std::string& by, const std::string& reason) {
  return of_segment(emptying_opening, segment, by, reason);
}

std::optional<std::uint32_t> emptied_segment(const ErasureRecord& record) { return segment_of(emptying_opening, record); }

std::int64_t now_us() {
  auto since_epoch = std::chrono::system_clock::now().time_since_epoch();
  return std::chrono::duration_cast<std::chrono::microseconds>(since_epoch).count();
}

}  // namespace holdfast::journal
