// Rewriting a sealed segment: the same records at the same numbers in the same chain, under a new key, compressed,
// without those to be erased.
//
// Commitments and links stay, and with them every head. The old file's key is overwritten before the file
// goes.
#pragma once

#include <functional>
#include <set>
#include <string>

#include "journal/segment.h"
#include "journal/signing.h"

namespace holdfast::journal {

struct RewriteOptions {
  std::set<RecordId> erased = {};
  /// Mail goes first: write in small steps, with pauses.
  bool is_gentle = false;
  /// Asked now and then: false ends the work with the error busy, and nothing is changed.
  std::function<bool()> goes_on = [] { return true; };
};

/// Puts a rewritten file in the segment's place. Crash-safe: at each moment the old file or the new one is
/// there, with a manifest that fits. What is left of an interrupted run is replaced by the next. Readers that
/// have the old file open keep it. Errors: busy, no_space, corrupt (a damaged record: nothing is changed), io.
Status rewrite_segment(const std::string& journal, const Segment& segment, const KeyRing& keys, const SigningKey& key, const RewriteOptions& options);

/// Takes a whole segment away, its key first. Its head stays. Errors: io.
Status remove_segment(const std::string& journal, std::uint32_t number);

/// Destroys the keys of old files that an interruption left. To be called when the journal is opened for
/// writing.
Status destroy_leftovers(const std::string& journal);

}  // namespace holdfast::journal
