// The segments that the daemon has open: one object each for the whole process, as LMDB wants it.
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <string>

#include "journal/segment.h"

namespace holdfast::journal {

/// Thread-safe. A segment stays open once it was opened.
class Segments {
 public:
  Segments(std::string journal, const KeyRing& keys) : journal_(std::move(journal)), keys_(keys) {}

  /// Takes note of the newest segment, which the writer opened.
  void adopt(std::shared_ptr<Segment> segment);
  /// The segment with that number, opened for reading when it is not open yet. Errors as Segment::open; not_found also for one that is
  /// there, but not adopted: a second object of it would, when it goes, take LMDB's lock on the file from the writer's, and the next
  /// process that opens it would make its mutexes anew while the writer holds one.
  Result<std::shared_ptr<Segment>> get(std::uint32_t number);
  /// The file was replaced: whoever asks from now on gets the new one.
  void forget(std::uint32_t number);
  /// The number of the newest that was adopted; 0 for none.
  std::uint32_t newest();
  /// The segment that holds a record. Error: not_found.
  Result<std::shared_ptr<Segment>> holding(RecordId id);

 private:
  const std::string journal_;
  const KeyRing keys_;
  std::mutex mutex_;
  std::map<std::uint32_t, std::shared_ptr<Segment>> open_;
  std::uint32_t newest_ = 0;
};

}  // namespace holdfast::journal
