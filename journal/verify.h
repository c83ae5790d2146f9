// Verification: reads everything and believes nothing.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "journal/master_key.h"
#include "journal/result.h"
#include "journal/segment_check.h"
#include "journal/signing.h"

namespace holdfast::journal {

struct Verification {
  std::uint64_t segments = 0, records = 0, entries = 0, content_bytes = 0;
  std::uint64_t erased = 0;       ///< records of which only the commitment is left
  std::uint64_t heads = 0;        ///< signed heads that hold
  std::vector<Finding> findings;  ///< in the order of the log; empty when all is well
  std::string last_link;          ///< hexadecimal: the chain's end
};

struct VerifyProgress {
  std::uint64_t bytes_done, bytes_total;  ///< of the segment files
};

struct VerifyOptions {
  std::optional<MasterKeySource> key;  ///< nothing: check only what needs no decryption
  std::optional<PublicKey> signer;     ///< whose signatures count; else that of signing.pub in the journal
  std::string heads_path;              ///< a file of heads that were published: the journal must contain them all
  std::int64_t since_us = 0;           ///< leave out segments that ended before
};

/// Checks each segment (segment_check.h); for sealed ones the signed head over all that, and the manifest of
/// the bytes; that what is gone was erased or pruned on record; and at last how many entries the catalog has.
/// Goes on after a finding. The log may grow, be rewritten and lose its beginning meanwhile.
///
/// @param on_progress  called now and then; may be empty.
Result<Verification> verify(const std::string& journal, const VerifyOptions& options, const std::function<void(const VerifyProgress&)>& on_progress);

}  // namespace holdfast::journal
