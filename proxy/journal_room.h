// How much the journal may still take.
#pragma once

#include "proxy/config.h"

namespace holdfast::proxy {

struct JournalRoom {
  std::uint64_t left = 0;  ///< bytes: what is free on its disk, or less where journal.max_size allows less
  /// Nine tenths of what it may have are used, or others have filled its disk.
  bool is_nearly_full = false;
};

/// @param bytes            the size of its segments
/// @param was_nearly_full  as told before: it takes more than a little to end that
JournalRoom room_for_journal(const JournalConfig& config, std::uint64_t bytes, bool was_nearly_full = false);

}  // namespace holdfast::proxy
