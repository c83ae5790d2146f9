// The check of one segment, in a process of its own: damage that makes LMDB itself fall over becomes a finding like any other.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "journal/cell.h"
#include "journal/crypto.h"
#include "journal/key_ring.h"
#include "journal/record.h"

namespace holdfast::journal {

struct Finding {
  std::uint32_t segment;
  std::uint64_t record;  ///< 0 when it is not about one record
  std::string what;
};

/// Where the chain stands between two segments.
struct Chain {
  Hash link{};
  CellNumber next_cell = 0;
  bool is_known = true;  ///< false after a segment that could not be read
};

/// What a segment was found to hold.
struct SegmentReport {
  Chain chain;  ///< after the segment
  Hash root{};  ///< of the Merkle tree over the records' commitments
  std::uint64_t records = 0, entries = 0, content_bytes = 0;
  std::uint64_t indexed_entries = 0;   ///< of the entries, those that the catalog is to know
  std::vector<RecordId> erased;        ///< records of which only the commitment is left
  std::vector<RecordId> announced;     ///< records of which an erasure record says that they were erased
  std::vector<std::uint32_t> pruned;   ///< segments of which a record says that they were taken away
  std::vector<std::uint32_t> emptied;  ///< segments of which a record says that their mail was erased
  std::vector<Finding> findings;
};

/// Checks the header, the order of cells, the chain of links, each record's tag and commitment, each message's frames, size and
/// SHA-256. A segment that cannot be read is a finding. To be called while the process has one thread only.
///
/// @param keys       nothing: only what needs no decryption
/// @param before     where the chain stands before the segment
/// @param indexed    the catalog is to know the entries up to this record
/// @param on_bytes   told now and then how many bytes of content were read
/// @param meanwhile  done in this process while the other reads
/// Errors: io, when no process can be started.
Result<SegmentReport> check_segment(const std::string& journal, std::uint32_t number, const std::optional<KeyRing>& keys, const Chain& before,
                                    RecordId indexed, const std::function<void(std::uint64_t)>& on_bytes, const std::function<void()>& meanwhile);

}  // namespace holdfast::journal
