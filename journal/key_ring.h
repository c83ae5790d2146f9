// The key ring: the keys that wrap the segments' keys, and the one that catalog and directory derive theirs
// from; sealed with the master key in a small file of the journal's (FORMAT.md, "Keys").
//
// So another master key is a matter of one file: the ring is sealed anew, and gets a new wrapping key for the
// segments to come, while the content stays as it is.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "journal/master_key.h"

namespace holdfast::journal {

enum class Rekey {
  change,        ///< to another master key, by who has the one in use
  replace_lost,  ///< to a new one, by who has this ring open: the one in use is nowhere any more
  finish         ///< let go of the old one, where both open the ring
};

/// Copies share the same keys. Thread-safe.
class KeyRing {
 public:
  static std::string path_in(const std::string& journal);
  /// The ring as it stands in its file, sealed, for a copy of it. Errors: not_found, corrupt, io.
  static Result<std::string> sealed_in(const std::string& journal);

  /// Opens the ring of a journal. Errors: not_found, wrong_key, corrupt, permission.
  static Result<KeyRing> open(const std::string& journal, const MasterKeySource& master);
  /// Opens it for whoever writes the journal. A new journal gets a ring, and, without a key command, a master
  /// key. Master keys that were replaced by the one given stop working here.
  static Result<KeyRing> open_or_create(const std::string& journal, const MasterKeySource& master, bool is_new);

  /// A segment's key, sealed with the newest wrapping key.
  std::string wrap(const Key& key, std::string_view associated) const;
  /// Looks into the ring's file again when no key fits: a rekey of another process may have put a newer one there.
  std::optional<Key> unwrap(std::string_view sealed, std::string_view associated) const;
  /// What the catalog's and the directory's keys are derived from. It never changes.
  Key base_key() const;

  /// From now on another master key opens this ring, and new segments are sealed with a new wrapping key.
  /// Where the master key is in a file, it is replaced; new_key, when given, names a file with the new one,
  /// which stays. Where it comes from a command, new_key is needed, and both keys open the ring until the
  /// command gives the new one and finish_rekey() (or a start of the daemon) has seen it. Crash-safe: at each
  /// moment a master key that is at its place opens the ring, unless it was lost before; run again after an interruption, it is done
  /// anew. Errors: no_space, io; invalid, where is_lost is not so.
  Status rekey(const MasterKeySource& master, const std::string& new_key, bool is_lost);
  /// Whether the key file, where there is one, still has the master key: after a restart nothing could be read otherwise. Errors:
  /// not_found, permission (not readable, or others may read it), corrupt, wrong_key.
  Status check_key_file(const MasterKeySource& master) const;
  /// Puts the ring's file back as it was last read, should somebody have removed or emptied it: without it, what is written now could
  /// never be read. Returns whether that had to be. Errors: permission, no_space, io.
  Result<bool> put_back();
  /// Returns whether only the key that the source gives now opens the ring.
  Result<bool> finish_rekey(const MasterKeySource& master);

 private:
  struct State;
  explicit KeyRing(std::shared_ptr<State> state) : state_(std::move(state)) {}
  std::shared_ptr<State> state_;
};

}  // namespace holdfast::journal
