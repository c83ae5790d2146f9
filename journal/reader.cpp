#include "journal/reader.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>

#include "journal/canonical_address.h"

namespace holdfast::journal {
bool passes(const Entry& entry, const Filter& filter) {
  const MessageRecord& message = entry.message;
  if (filter.since_us && message.time_us < *filter.since_us) return false;
  if (filter.until_us && message.time_us >= *filter.until_us) return false;
  if (filter.route && message.route != *filter.route) return false;
  if (filter.direction && message.direction != *filter.direction) return false;
  if (filter.sender && canonical_address(message.mail_from) != canonical_address(*filter.sender)) return false;
  if (filter.message_id && normalise(message.message_id) != normalise(*filter.message_id)) return false;
  auto any = [&](auto predicate) { return std::any_of(message.recipients.begin(), message.recipients.end(), predicate); };
  if (filter.recipient && !any([&](const Recipient& one) { return canonical_address(one.address) == canonical_address(*filter.recipient); }))
    return false;
  return !filter.outcome || any([&](const Recipient& one) { return one.outcome == *filter.outcome; });
}

Result<std::unique_ptr<Reader>> Reader::open(const std::string& journal, const MasterKeySource& key) {
  auto numbers = list_segments(journal);
  if (!numbers) return numbers.error();
  auto keys = KeyRing::open(journal, key);
  if (!keys) return keys.error();
  std::unique_ptr<Reader> reader(new Reader(journal, *keys, std::move(*numbers)));
  if (auto catalog = Catalog::open(journal, keys->base_key(), Environment::Mode::read)) {
    reader->catalog_ = std::move(*catalog);
    if (auto position = reader->catalog_->position()) reader->indexed_ = *position;
  }
  if (Status loaded = reader->load_recent_outcomes(); !loaded) return loaded.error();
  return reader;
}

/// Outcomes of records that the catalog does not know yet. They may be of entries that it does know.
Status Reader::load_recent_outcomes() {
  for (auto number = numbers_.rbegin(); number != numbers_.rend(); ++number) {
    auto segment = this->segment(*number);
    if (!segment) {
      if (segment.error().code == ErrorCode::not_found) continue;  // pruned meanwhile
      if (!is_damage(segment.error())) return segment.error();
      ++damaged_;
      continue;
    }
    Status read = (*segment)->each_record_of(RecordKind::outcome, indexed_ + 1, [&](Segment::StoredRecord& record) {
      if (record.damage.empty() && !record.is_erased)
        if (auto outcome = decode_outcome(record.encoded)) recent_outcomes_[outcome->entry].push_back(std::move(*outcome));
      return true;
    });
    if (!read && !is_damage(read.error())) return read;
    if (!read) ++damaged_;
    if ((*segment)->header().first_cell <= indexed_) break;
  }
  return {};
}

void bring_up_to_date(Entry& entry, const OutcomeRecord& outcome) {
  bring_up_to_date(entry.message.recipients, outcome);
  entry.is_possible_duplicate |= outcome.is_possible_duplicate;
}

Status Reader::settle(Entry& entry) {
  if (catalog_ && entry.id <= indexed_) {
    auto places = catalog_->outcomes_of(entry.id);
    if (!places) return places.error();
    for (const Catalog::Place& place : *places) {
      auto segment = this->segment(place.segment);
      if (!segment) continue;
      auto record = (*segment)->record(place.id);
      if (!record || !*record || !(*record)->damage.empty()) continue;
      if (auto outcome = decode_outcome((*record)->encoded)) bring_up_to_date(entry, *outcome);
    }
  }
  auto recent = recent_outcomes_.find(entry.id);
  if (recent != recent_outcomes_.end())
    for (const OutcomeRecord& outcome : recent->second) bring_up_to_date(entry, outcome);
  return {};
}

/// What the catalog can find; nothing when the filter names nothing indexed, or there is no catalog.
std::optional<Reader::Wanted> Reader::indexed_part(const Filter& filter) const {
  if (!catalog_) return std::nullopt;
  if (filter.message_id) return Wanted{Term::message_id, *filter.message_id};
  if (filter.recipient) return Wanted{Term::recipient, *filter.recipient};
  if (filter.sender) return Wanted{Term::sender, *filter.sender};
  return std::nullopt;
}

/// Records of a segment that the catalog knows for a term, some at a time; and, read from the log itself, what it does not know yet.
Status Reader::each_indexed(Segment& segment, const Wanted& wanted, bool newest_first, const std::function<bool(Segment::StoredRecord&)>& consider) {
  constexpr std::size_t batch = 256;
  constexpr RecordId newest = std::numeric_limits<RecordId>::max() >> 1;
  bool goes_on = true;
  auto unindexed = [&]() -> Status {
    auto visit = [&](Segment::StoredRecord& record) {
      if (newest_first && record.id <= indexed_) return false;
      return goes_on = consider(record);
    };
    return newest_first ? segment.each_record_backwards(newest, visit) : segment.each_record(indexed_ + 1, visit);
  };
  if (newest_first)
    if (Status read = unindexed(); !read || !goes_on) return read;
  // The catalog may know more by now than when this reader was opened: that part is looked at as the rest that it did not know.
  for (RecordId from = newest_first ? indexed_ : 0; goes_on;) {
    auto ids = catalog_->find(segment.header().number, wanted.term, wanted.text, from, newest_first, batch);
    if (!ids) return ids.error();
    for (RecordId id : *ids) {
      if (id > indexed_) return unindexed();
      auto record = segment.record(id);
      if (!record && !is_damage(record.error())) return record.error();
      if (!record) ++damaged_;
      if (record && *record && !consider(**record)) return {};
    }
    if (ids->size() < batch) break;
    from = newest_first ? ids->back() - 1 : ids->back() + 1;
  }
  return newest_first ? Status() : unindexed();
}

/// The segments that may hold entries of the filter's time: what one holds was written after it was begun,
/// and before the next was.
std::vector<std::uint32_t> Reader::within_time_of(const Filter& filter) {
  if (!filter.since_us && !filter.until_us) return numbers_;
  constexpr std::int64_t slack_us = 3'600'000'000;  // clocks are set
  std::vector<std::uint32_t> within;
  for (std::size_t i = 0; i < numbers_.size(); ++i) {
    bool is_last = i + 1 == numbers_.size();
    auto begun = segments_.place(numbers_[i]);
    auto ended = is_last ? begun : segments_.place(numbers_[i + 1]);
    // A clock that went backwards tells nothing.
    bool tells = !is_last && begun && ended && begun->created_us <= ended->created_us;
    bool is_before = tells && filter.since_us && ended->created_us + slack_us <= *filter.since_us;
    bool is_after = tells && filter.until_us && begun->created_us - slack_us >= *filter.until_us;
    if (!is_before && !is_after) within.push_back(numbers_[i]);
  }
  return within;
}

Result<std::vector<RecordId>> Reader::ids(const Filter& filter) {
  std::vector<RecordId> found;
  bool goes_on = true;
  for (std::uint32_t number : within_time_of(filter)) {
    Status read = each_in(
        number, filter, false, filter.outcome.has_value(), [&](const Entry& entry) { return found.push_back(entry.id), true; }, goes_on);
    if (!read) return read.error();
  }
  return found;
}

Status Reader::each(const Filter& filter, bool newest_first, const std::function<bool(const Entry&)>& visit) {
  std::vector<std::uint32_t> order = within_time_of(filter);
  if (newest_first) std::reverse(order.begin(), order.end());
  bool goes_on = true;
  for (std::uint32_t number : order) {
    if (Status read = each_in(number, filter, newest_first, true, visit, goes_on); !read) return read;
    if (!goes_on) break;
  }
  return {};
}

Status Reader::each_record(RecordKind kind, const Filter& filter, const std::function<void(const Segment::StoredRecord&)>& visit) {
  Status all;
  for (std::uint32_t number : within_time_of(filter)) {
    auto segment = this->segment(number);
    if (!segment && segment.error().code == ErrorCode::not_found) continue;  // pruned meanwhile
    Status read = !segment ? segment.error() : (*segment)->each_record_of(kind, 0, [&](Segment::StoredRecord& record) {
      if (record.damage.empty()) visit(record);
      return true;
    });
    if (!read && all) all = read;
  }
  return all;
}

Status Reader::each_in(std::uint32_t number, const Filter& filter, bool newest_first, bool with_outcomes,
                       const std::function<bool(const Entry&)>& visit, bool& goes_on) {
  auto segment = this->segment(number);
  if (!segment) {
    if (segment.error().code == ErrorCode::not_found) return {};  // pruned meanwhile
    if (!is_damage(segment.error())) return segment.error();
    ++damaged_;
    return {};
  }
  Status problem;
  auto consider = [&](Segment::StoredRecord& record) {
    if (!record.damage.empty()) return ++damaged_, true;
    if (record.kind != RecordKind::message || record.is_erased) return true;
    std::optional<MessageRecord> message = decode_message(record.encoded);
    if (!message) return ++damaged_, true;
    Entry entry{record.id, number, std::move(*message), std::move(record.content)};
    if (with_outcomes) problem = settle(entry);
    if (!problem) return false;
    if (passes(entry, filter)) goes_on = visit(entry);
    return goes_on;
  };
  constexpr RecordId newest = std::numeric_limits<RecordId>::max() >> 1;
  std::optional<Wanted> wanted = indexed_part(filter);
  Status walked = wanted         ? each_indexed(**segment, *wanted, newest_first, consider)
                  : newest_first ? (*segment)->each_record_backwards(newest, consider)
                                 : (*segment)->each_record(0, consider);
  if (!problem) return problem;
  bool is_damaged = !walked && is_damage(walked.error());
  if (is_damaged) ++damaged_;  // its other records are left out
  return is_damaged ? Status() : walked;
}

Result<Entry> Reader::entry(RecordId id) {
  Result<Entry> entry = entry_as_written(id);
  if (!entry) return entry;
  if (Status settled = settle(*entry); !settled) return settled.error();
  return entry;
}

Result<Entry> Reader::entry_as_written(RecordId id) {
  const Error unknown{ErrorCode::not_found, fmt::format("there is no entry {} in this journal; see: holdfast journal list", id)};
  auto segment = segments_.holding(id);
  if (!segment) return segment.error().code == ErrorCode::not_found ? segments_.damage_behind(0).value_or(unknown) : segment.error();
  auto record = (*segment)->record(id);
  if (!record) return record.error();
  if (!*record) return segments_.damage_behind((*segment)->header().number).value_or(unknown);
  if (!(*record)->damage.empty()) return Error{ErrorCode::corrupt, fmt::format("entry {} is damaged: {}", id, (*record)->damage)};
  if ((*record)->kind != RecordKind::message) return unknown;
  if ((*record)->is_erased)
    return Error{ErrorCode::not_found, fmt::format("entry {} was erased; by whom and why, says: holdfast journal erasures", id)};
  std::optional<MessageRecord> message = decode_message((*record)->encoded);
  if (!message) return Error{ErrorCode::corrupt, fmt::format("entry {} is damaged: its record cannot be decoded", id)};
  return Entry{id, (*segment)->header().number, std::move(*message), std::move((*record)->content)};
}

Result<std::optional<std::string>> Reader::frame(const Entry& entry, std::uint32_t index) {
  auto segment = this->segment(entry.segment);
  if (!segment) return segment.error();
  return (*segment)->frame(entry.message, entry.content, index);
}

Status Reader::content(const Entry& entry, const std::function<bool(std::string_view)>& sink) {
  auto segment = this->segment(entry.segment);
  if (!segment) return segment.error();
  return (*segment)->content(entry.message, entry.content, sink);
}

}  // namespace holdfast::journal
