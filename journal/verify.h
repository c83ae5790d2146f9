// Verification: reads everything and believes nothing.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "journal/crypto.h"
#include "journal/result.h"

namespace holdfast::journal {

struct Finding {
  std::uint32_t segment;
  std::uint64_t record;  ///< 0 when it is not about one record
  std::string what;
};

struct Verification {
  std::uint64_t segments = 0, records = 0, entries = 0, content_bytes = 0;
  std::vector<Finding> findings;  ///< in the order of the log; empty when all is well
  std::string last_link;          ///< hexadecimal: the chain's end
};

struct VerifyProgress {
  std::uint64_t bytes_done, bytes_total;  ///< of the segment files
};

/// Checks, segment by segment: the header, the order of cells, the chain of links, each record's tag and commitment, each
/// message's frames, size and SHA-256. Goes on after a finding. A segment is read in a process of its own, so
/// that damage which makes LMDB itself fall over becomes a finding too.
///
/// @param on_progress  called now and then; may be empty.
Result<Verification> verify(const std::string& journal, const std::string& key_path,
                            const std::function<void(const VerifyProgress&)>& on_progress);

}  // namespace holdfast::journal
