// A segment: one LMDB environment that holds a stretch of the log, its own key, and the link to the segment before.
//
// Written with ascending keys only and never deleted from. Many processes may read one while the daemon writes it; a
// segment file must be opened only once in a process.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "journal/cell.h"
#include "journal/key_ring.h"
#include "journal/lmdb.h"

namespace holdfast::journal {

struct SegmentHeader {
  std::uint32_t number = 0;
  CellNumber first_cell = 0;  ///< the lowest cell number that this segment may hold
  std::int64_t created_us = 0;
  Hash previous_link{};         ///< link of the last record of the segment before; zeros for the first
  bool follows_damage = false;  ///< the segment before could not be read, so previous_link is zeros
  bool is_compacted = false;    ///< rewritten, compressed, after it was sealed
  std::string sealed_key;       ///< the segment's key, wrapped by the key ring
};

/// The folder and the names of segment files in a journal.
std::string segment_folder(const std::string& journal);
std::string segment_path(const std::string& journal, std::uint32_t number);
/// The writer's lock.
std::string daemon_lock_path(const std::string& journal);
/// Numbers of the segments there are, ascending.
Result<std::vector<std::uint32_t>> list_segments(const std::string& journal);

class Segment {
 public:
  /// Makes the file whole or not at all: a crash leaves at most a file with the ending ".new", which the next call replaces, or one
  /// without records.
  static Result<std::unique_ptr<Segment>> create(const std::string& journal, SegmentHeader header, const KeyRing& keys, std::uint64_t map_size);
  /// Errors: wrong_key, corrupt, permission, not_found. For Mode::read, map_size is 0; a segment that another one follows is read
  /// without a lock.
  static Result<std::unique_ptr<Segment>> open(const std::string& journal, std::uint32_t number, const KeyRing& keys, Environment::Mode mode,
                                               std::uint64_t map_size = 0);

  /// Opens it for what needs no key: the header, numbers, commitments and links. Records then come without what they say.
  static Result<std::unique_ptr<Segment>> open_without_key(const std::string& journal, std::uint32_t number);

  const SegmentHeader& header() const { return header_; }
  const Key& key() const { return key_; }
  /// The header's bytes for the same segment, compacted, under another key.
  std::string header_for(const Key& key, const KeyRing& keys) const;
  const Environment& environment() const { return environment_; }
  const std::string& path() const { return environment_.path(); }

  /// Where the next cell goes and what the next record links to. Of a segment that is not compacted.
  struct Tail {
    CellNumber next_cell;
    Hash link;
  };
  Result<Tail> tail() const;
  /// The number after its last cell's.
  Result<CellNumber> next_cell() const;

  /// A record, out of its storage: copies, valid for as long as you like.
  struct StoredRecord {
    RecordId id = 0;
    RecordKind kind{};
    Hash commitment{}, link{};
    ContentPlace content;
    std::string encoded;     ///< empty when damage is set
    std::string salt;        ///< what was committed to is salt and encoded
    bool is_erased = false;  ///< only number, kind, commitment and link are left
    std::string damage;      ///< what is wrong with it, empty when nothing is
  };
  /// The record with that number, or nothing. Damage is reported in the record.
  Result<std::optional<StoredRecord>> record(RecordId id) const;
  /// Calls visit for each record from the id on, in order, in read transactions of bounded length, until visit returns false.
  Status each_record(RecordId from, const std::function<bool(StoredRecord&)>& visit) const;
  /// Only those of a kind: the others are not opened, and what is damaged of them is not noticed.
  Status each_record_of(RecordKind kind, RecordId from, const std::function<bool(StoredRecord&)>& visit) const;
  /// All from the newest at or before the id backwards.
  Status each_record_backwards(RecordId from, const std::function<bool(StoredRecord&)>& visit) const;

  /// One frame of a message's content, by its index; nothing after the last. Error: corrupt.
  Result<std::optional<std::string>> frame(const MessageRecord& message, const ContentPlace& place, std::uint32_t index) const;
  /// Hands a message's content to sink, frame by frame. sink returns false to stop early. Error: corrupt, naming the frame.
  Status content(const MessageRecord& message, const ContentPlace& place, const std::function<bool(std::string_view)>& sink) const;

 private:
  explicit Segment(Environment environment) : environment_(std::move(environment)) {}
  static Result<std::unique_ptr<Segment>> open_file(const std::string& journal, std::uint32_t number, const KeyRing* keys, Environment::Mode mode,
                                                    std::uint64_t map_size);
  Status read_header(const KeyRing* keys);
  const Decompressor& decompressor() const;
  Result<std::string> cells(const ContentPlace& place, std::uint32_t index, std::size_t plain_size) const;
  Result<std::string> pieces(const ContentPlace& place, std::uint32_t index) const;
  StoredRecord open_cell(CellNumber cell, std::string_view value) const;
  struct Batch {
    std::vector<StoredRecord> records;
    int seen = 0;       ///< with those that are of another kind
    RecordId last = 0;  ///< of those seen
  };
  Result<Batch> read_batch(RecordId from, bool backwards, std::optional<RecordKind> kind, int most) const;
  Status walk(RecordId from, bool backwards, std::optional<RecordKind> kind, const std::function<bool(StoredRecord&)>& visit) const;

  Environment environment_;
  SegmentHeader header_;
  Key key_{};
  bool has_key_ = false;  ///< without it only commitments can be read
  mutable std::once_flag needs_decompressor_;
  mutable std::unique_ptr<Decompressor> decompressor_;
};

/// Appends a record to the log, in a write transaction on its newest segment; tail, the log's end, moves on.
Status append_record(Transaction& transaction, Segment::Tail& tail, const SealedRecord& record, ContentPlace content = {});

}  // namespace holdfast::journal
