// A proof: a small file with which a third party checks, without the journal, that a record was in it (RFC
// 9162 2.1.3).
//
// It holds the record itself with its salt, the path from its commitment to the root of the Merkle tree, and
// the signed head.
#pragma once

#include <string>

#include "journal/head.h"
#include "journal/record.h"
#include "journal/segment.h"

namespace holdfast::journal {

/// The proof of an entry, as JSON. Errors: not_found (no such entry, or its segment is not sealed yet),
/// corrupt.
Result<std::string> make_proof(const std::string& journal, const Segment& segment, RecordId entry);

struct ProvenEntry {
  Head head;
  MessageRecord message;
  std::uint64_t index;  ///< among the segment's records
};
/// Checks commitment, path and signature. key may be null: then the head's own key is believed. Error:
/// corrupt, saying which step fails.
Result<ProvenEntry> check_proof(const std::string& text, const PublicKey* key);

}  // namespace holdfast::journal
