// The reader: entries of a whole journal, for any process, while the daemon writes.
//
// Not thread-safe, but for what says otherwise.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "journal/catalog.h"
#include "journal/segments.h"

namespace holdfast::journal {

/// One journaled transaction with what is known of its recipients now.
struct Entry {
  RecordId id = 0;
  std::uint32_t segment = 0;
  MessageRecord message;  ///< recipients' outcomes and replies are the latest
  ContentPlace content;
  bool is_possible_duplicate = false;  ///< the primary may have got it twice
};

/// Brings an entry up to date with an outcome record of its own.
void bring_up_to_date(Entry& entry, const OutcomeRecord& outcome);

/// Which entries are wanted; what is not set does not matter.
struct Filter {
  std::optional<std::int64_t> since_us, until_us;
  std::optional<std::string> sender, recipient, message_id, route;
  std::optional<Outcome> outcome;  ///< of any recipient
  std::optional<Direction> direction;
};

/// Whether an entry is wanted.
bool passes(const Entry& entry, const Filter& filter);

class Reader {
 public:
  static Result<std::unique_ptr<Reader>> open(const std::string& journal, const MasterKeySource& key);

  /// Hands entries that pass the filter to visit, oldest first (or newest), until it returns false.
  /// A damaged record is skipped and counted in damaged().
  Status each(const Filter& filter, bool newest_first, const std::function<bool(const Entry&)>& visit);
  /// Hands records of a kind to visit, oldest first: of all segments, or those that may have some of the time in the filter. Error: a
  /// segment cannot be read; those of the others were visited.
  Status each_record(RecordKind kind, const Filter& filter, const std::function<void(const Segment::StoredRecord&)>& visit);
  /// The ids of entries that pass the filter, oldest first. Damaged records are left out and counted.
  Result<std::vector<RecordId>> ids(const Filter& filter);
  /// Errors: not_found, corrupt.
  Result<Entry> entry(RecordId id);
  /// The same as it was written, without what became of the recipients later.
  Result<Entry> entry_as_written(RecordId id);
  /// One frame of the content; nothing after the last.
  Result<std::optional<std::string>> frame(const Entry& entry, std::uint32_t index);
  /// Hands the content to sink piece by piece. The caller must check the whole against message.content_hash when it matters.
  Status content(const Entry& entry, const std::function<bool(std::string_view)>& sink);

  std::uint64_t damaged() const { return damaged_; }
  const std::vector<std::uint32_t>& segments() const { return numbers_; }
  /// Thread-safe, as are frame() and content().
  Result<std::shared_ptr<Segment>> segment(std::uint32_t number) { return segments_.get(number); }
  const std::string& journal() const { return journal_; }

 private:
  Reader(std::string journal, const KeyRing& keys, std::vector<std::uint32_t> numbers)
      : journal_(std::move(journal)), numbers_(std::move(numbers)), segments_(journal_, keys, numbers_) {}
  std::vector<std::uint32_t> within_time_of(const Filter& filter);
  Status each_in(std::uint32_t number, const Filter& filter, bool newest_first, bool with_outcomes, const std::function<bool(const Entry&)>& visit,
                 bool& goes_on);
  /// An indexed part of a filter.
  struct Wanted {
    Term term;
    std::string text;
  };
  std::optional<Wanted> indexed_part(const Filter& filter) const;
  Status each_indexed(Segment& segment, const Wanted& wanted, bool newest_first, const std::function<bool(Segment::StoredRecord&)>& consider);
  Status load_recent_outcomes();
  Status settle(Entry& entry);

  const std::string journal_;
  const std::vector<std::uint32_t> numbers_;
  Segments segments_;
  std::unique_ptr<Catalog> catalog_;                                ///< null when there is none
  RecordId indexed_ = 0;                                            ///< the catalog's position
  std::map<RecordId, std::vector<OutcomeRecord>> recent_outcomes_;  ///< from records after indexed_, by entry
  std::uint64_t damaged_ = 0;
};

}  // namespace holdfast::journal
