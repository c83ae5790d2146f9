// The catalog: an index over the log, by recipient, sender and Message-ID, and the outcomes of each entry.
//
// Everything in it can be derived from the segments. Its keys hold no personal data in the clear, only keyed hashes. It
// lags behind the log by a second or so: readers look at the log itself for what comes after position().
#pragma once

#include <cstdint>
#include <functional>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "journal/lmdb.h"
#include "journal/record.h"
#include "journal/writer.h"

namespace holdfast::journal {

/// What can be looked up. The values are part of the stored format.
enum class Term : std::uint8_t { recipient = 'r', sender = 's', message_id = 'm' };

/// The form under which a Message-ID is indexed: ASCII letters in lower case, no angle brackets. Of an address: canonical_address().
std::string normalise(std::string_view text);

/// user+tag@domain without the tag; other addresses as they are.
std::string without_tag(std::string_view address);

/// A short stand-in for a route's name.
std::uint32_t route_hash(std::string_view route);

/// One thread at a time, but for what says otherwise.
class Catalog {
 public:
  /// base (the key ring's base key) gives the key of the hashes. Mode::read needs an existing catalog.
  static Result<std::unique_ptr<Catalog>> open(const std::string& journal, const Key& base, Environment::Mode mode);
  static std::string path_in(const std::string& journal);

  /// The last record that is indexed; 0 for none. Thread-safe.
  Result<RecordId> position() const;

  /// Reads all that a daemon needs to know at its start. Error: corrupt.
  Status check() const;

  /// How many entries are indexed.
  Result<std::uint64_t> entries() const;

  /// Indexes records, in order, and moves the position, in one synced commit. Records at or before the position are skipped.
  Status apply(const std::vector<Committed>& records);
  using Sink = std::function<Status(const std::vector<Committed>&)>;
  /// Throws everything away and indexes what feed hands to its sink, in one transaction: readers see the old catalog until
  /// the new one is whole, and another process that wants to write waits.
  Status rebuild(const std::function<Status(const Sink&)>& feed);

  /// A record's place.
  struct Place {
    std::uint32_t segment;
    RecordId id;
  };
  /// Where the erasure records are whose work may not be done yet. Thread-safe.
  Result<std::vector<Place>> unfinished_erasures() const;
  /// Where the legal hold records are, in order. Thread-safe.
  Result<std::vector<Place>> legal_holds() const;
  /// The work of an erasure record is done.
  Status finish_erasure(RecordId id);
  /// Takes out all that is indexed of erased entries of a segment, in one synced commit. They stay counted.
  Status forget(std::uint32_t segment, const std::set<RecordId>& entries);

  /// A segment that is taken away with all that it has.
  struct Removal {
    std::uint32_t segment;
    RecordId first, end;    ///< its records, from the first to before the end
    std::uint64_t entries;  ///< of them, as counted here
  };
  /// Notes, synced, that the segment is about to go: a crash behind that is found out.
  Status begin_removal(const Removal& removal);
  /// Those that were begun, whether the segments went or not, and not ended.
  Result<std::vector<Removal>> removals() const;
  /// Takes out a part of what is indexed of a segment that went. Returns whether there may be more.
  Result<bool> forget_part(const Removal& removal);
  /// The last step: its legal holds, the note, and its entries, which are counted no more.
  Status end_removal(const Removal& removal);

  /// Ids of entries in one segment that have the term, at most so many: ascending from an id on, or descending from it backwards. An
  /// address also stands for its sub-addresses (user+tag). Thread-safe.
  Result<std::vector<RecordId>> find(std::uint32_t segment, Term term, std::string_view text, RecordId from, bool backwards, std::size_t most) const;
  /// All entries of a segment that are indexed and not erased. Thread-safe.
  Result<std::set<RecordId>> entries_in(std::uint32_t segment) const;
  /// Where the outcome records of an entry are. Thread-safe.
  Result<std::vector<Place>> outcomes_of(RecordId entry) const;
  /// Entries with pending recipients, ascending.
  Result<std::vector<RecordId>> unsettled() const;
  /// An entry with recipients that are held: their indices.
  struct Held {
    RecordId entry;
    std::uint32_t route;  ///< route_hash() of its route
    std::vector<std::uint32_t> recipients;
  };
  /// Entries after the id with held recipients, ascending, at most so many. Thread-safe.
  Result<std::vector<Held>> held_after(RecordId id, std::size_t most) const;
  /// Where a route's last state record is; nothing when it has none. Thread-safe.
  Result<std::optional<Place>> state_of(std::string_view route) const;
  /// The same of all routes. Thread-safe.
  Result<std::vector<Place>> states() const;

 private:
  Catalog(Environment environment, const Key& key) : environment_(std::move(environment)), hash_(key) {}
  Result<std::uint64_t> number(std::string_view key) const;
  Result<std::uint64_t> number(const Transaction& transaction, std::string_view key) const;
  Status index(Transaction& transaction, const std::vector<Committed>& records) const;
  std::string term_prefix(std::uint32_t segment, Term term, std::string_view text) const;
  Status index_message(Transaction& transaction, const Committed& record) const;
  Status index_outcome(Transaction& transaction, const Committed& record) const;
  static Status index_erasure(Transaction& transaction, const Committed& record);
  Status each_with(char letter, std::size_t size, const std::function<void(std::string_view number, std::string_view value)>& visit) const;
  Result<std::vector<Place>> places_with(char letter) const;
  Status index_state(Transaction& transaction, const Committed& record) const;
  Result<std::vector<std::string>> keys_with(std::string_view prefix) const;

  void keep_space();

  Environment environment_;
  std::uint64_t kept_to_ = 0;  ///< the file's end, with what the disk keeps for it
  mutable std::mutex hashing_;
  mutable KeyedHash hash_;
};

}  // namespace holdfast::journal
