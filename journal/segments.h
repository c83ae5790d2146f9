// The segments that a process has open: one object of each, as LMDB wants it, and few at a time, however many
// the journal has.
#pragma once

#include <list>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "journal/segment.h"

namespace holdfast::journal {

/// What stays known of a segment that was open once.
struct SegmentPlace {
  std::uint32_t number = 0;
  CellNumber first_cell = 0;    ///< the lowest that it may hold
  std::int64_t created_us = 0;  ///< when it was begun
};

/// Thread-safe.
class Segments {
 public:
  /// @param numbers  of the segments that are there, ascending
  Segments(std::string journal, const KeyRing& keys, const std::vector<std::uint32_t>& numbers);

  /// Takes note of the newest segment, which the writer opened. The one before it is closed when nobody uses
  /// it any more.
  void adopt(std::shared_ptr<Segment> segment);
  /// The segment with that number, opened for reading when it is not open yet. Errors as Segment::open; with
  /// a writer, not_found also for one that is there, but not adopted: a second object of it would, when it
  /// goes, take LMDB's lock on the file from the writer's, and the next process that opens it would make its
  /// mutexes anew while the writer holds one.
  Result<std::shared_ptr<Segment>> get(std::uint32_t number);
  /// The file was replaced: whoever asks from now on gets the new one.
  void forget(std::uint32_t number);
  /// The file was removed.
  void remove(std::uint32_t number);
  /// The number of the newest that was adopted; 0 for none.
  std::uint32_t newest();
  /// The numbers of all, from one on, ascending.
  std::vector<std::uint32_t> numbers(std::uint32_t from = 0);
  /// What is known of a segment, which is opened for it when it never was. Errors as get().
  Result<SegmentPlace> place(std::uint32_t number);
  /// The segment that holds a record, if any does; those that are damaged or gone are passed over. Error:
  /// not_found.
  Result<std::shared_ptr<Segment>> holding(RecordId id);
  /// What is wrong with the next segment, when it cannot be opened: a record that the segment before does not have may be there.
  /// @param number  of the segment before; 0: of none
  std::optional<Error> damage_behind(std::uint32_t number);

 private:
  /// So many stay open for whoever comes next.
  static constexpr std::size_t most_idle = 64;

  struct Slot {
    std::uint32_t number = 0;
    std::weak_ptr<Segment> segment;
    std::optional<SegmentPlace> place;
  };
  /// What is closed is closed when nobody waits for the mutex any more.
  using Closed = std::vector<std::shared_ptr<Segment>>;
  std::vector<Slot>::iterator at(std::uint32_t number);
  Slot* find(std::uint32_t number);
  void note(const std::shared_ptr<Segment>& segment);
  Result<std::shared_ptr<Segment>> open(std::uint32_t number, Closed& closed);
  Result<SegmentPlace> place(std::uint32_t number, Closed& closed);
  void use(const std::shared_ptr<Segment>& segment, Closed& closed);
  void drop(std::uint32_t number, Closed& closed);

  const std::string journal_;
  const KeyRing keys_;
  std::mutex mutex_;
  std::vector<Slot> slots_;                     ///< ascending by number
  std::list<std::shared_ptr<Segment>> recent_;  ///< the last used first
  std::shared_ptr<Segment> adopted_;
};

}  // namespace holdfast::journal
