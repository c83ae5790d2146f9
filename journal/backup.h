// A backup: a copy of the journal that is consistent and hot, incremental on sealed segments.
//
// It holds segments, manifests, heads, the public key, the key ring, the directory and the mailboxes, but not the master
// key: whoever has the backup alone cannot read it. What was erased or pruned since the last run goes
// from the backup too.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "journal/result.h"

namespace holdfast::journal {

struct BackedUp {
  std::uint64_t copied = 0, unchanged = 0, removed = 0;  ///< segments
  std::uint64_t bytes = 0;                               ///< copied
  std::vector<std::string> damaged;                      ///< what is wrong, of each file that is damaged, and what the backup has of it
};

/// A file in a backup that says of when it is. A daemon that finds it in its journal has been started on a backup that was
/// put back: what counts on from there must not be mistaken for what came after the backup.
std::string backup_mark(const std::string& folder);

/// Brings the backup in a folder up to date; the folder is made when missing. Works while a daemon writes.
/// Each file is put there whole or not at all, and sealed segments are compared with their manifests before
/// they are; an interrupted run is ended by the next one. What is erased or begun meanwhile is in the backup
/// with the record of it. Errors: busy (the folder is the journal itself or in it, the backup of another
/// journal, not a backup, or one that a daemon was started on; another backup is being made there; or a
/// segment is rewritten again and again), no_space, permission, io. What is damaged stops nothing, and takes no
/// good copy's place: a segment or store is copied as it is where the backup has none. on_progress gets the share
/// done, 0 to 1.
Result<BackedUp> back_up(const std::string& journal, const std::string& folder, const std::function<void(double)>& on_progress);

}  // namespace holdfast::journal
