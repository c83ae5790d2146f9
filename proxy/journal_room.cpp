#include "proxy/journal_room.h"

#include <algorithm>

#include "journal/files.h"

namespace holdfast::proxy {
namespace {

/// Less than this, free on a disk that others use too, may be gone at any time.
constexpr std::uint64_t little = 256ULL << 20;

}  // namespace

JournalRoom room_for_journal(const JournalConfig& config, std::uint64_t bytes, bool was_nearly_full) {
  std::uint64_t free = journal::free_space(config.path);
  JournalRoom room{free, false};
  if (config.max_size > 0) room.left = std::min(free, config.max_size - std::min(config.max_size, bytes));
  room.is_nearly_full = room.left < bytes / (was_nearly_full ? 7 : 9) || free < little;
  return room;
}

}  // namespace holdfast::proxy
