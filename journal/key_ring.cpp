#include "journal/key_ring.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <mutex>

#include "journal/files.h"
#include "journal/lmdb.h"

namespace holdfast::journal {
namespace {

constexpr std::string_view first_line = "holdfast-keys-1";
constexpr std::string_view ring_associated = "key ring";

std::string seal_hex(const Key& master, std::string_view plain) {
  std::string sealed;
  seal(master, plain, ring_associated, sealed);
  return to_hex(sealed);
}

/// The copies of the ring in the file, each sealed with another master key; the newest last.
Result<std::vector<std::string>> read_copies(const std::string& path) {
  std::ifstream file(path);
  if (!file) {
    if (errno == ENOENT)
      return Error{ErrorCode::not_found, fmt::format("{}: the journal's key ring is missing; restore this file from your backup", path)};
    return lmdb_error(errno, path);
  }
  std::string line;
  std::vector<std::string> copies;
  bool is_ring = std::getline(file, line) && line == first_line;
  while (is_ring && std::getline(file, line)) {
    std::optional<std::string> copy = from_hex(line);
    if (!copy)
      is_ring = false;
    else
      copies.push_back(std::move(*copy));
  }
  if (!is_ring || copies.empty())
    return Error{ErrorCode::corrupt, fmt::format("{}: the journal's key ring is damaged; restore this file from your backup", path)};
  return copies;
}

std::string ring_of(const std::vector<std::string>& hex) {
  std::string text(first_line);
  for (const std::string& one : hex) text += "\n" + one;
  return text + "\n";
}

Status write_copies(const std::string& path, const std::vector<std::string>& hex) { return write_file(path, ring_of(hex)); }

/// Between a new key file's writing and its taking the old one's place.
std::string next_path(const std::string& key_file) { return key_file + ".next"; }

}  // namespace

struct KeyRing::State {
  std::mutex mutex;
  const std::string path;
  const MasterKeySource source;
  std::vector<std::string> copies;  ///< as they were read or written; another process may have put others in their place since
  std::vector<Key> keys;            ///< the base key, then the wrapping keys, the newest last

  State(std::string file, MasterKeySource master) : path(std::move(file)), source(std::move(master)) {}

  /// Reads the file, unless it is as it was. Returns whether there are other keys now.
  Result<bool> read() {
    auto now = read_copies(path);
    while (now && *now != copies) {
      Result<Key> master = read_master_key(source);
      if (!master) return master.error();
      for (const std::string& copy : *now) {
        std::optional<std::string> plain = open_sealed(*master, copy, ring_associated);
        if (!plain || plain->size() < 2 * sizeof(Key) || plain->size() % sizeof(Key) != 0) continue;
        keys.resize(plain->size() / sizeof(Key));
        for (std::size_t i = 0; i < keys.size(); ++i) std::memcpy(keys[i].data(), plain->data() + i * sizeof(Key), sizeof(Key));
        copies = std::move(*now);
        return true;
      }
      // A rekey between the two reads? The ring's file comes first and last in it.
      auto again = read_copies(path);
      if (again && *again == *now)
        return Error{ErrorCode::wrong_key, fmt::format("{}: the master key ({}) does not open this journal; restore the key that it was written with",
                                                       path, source.name())};
      now = std::move(again);
    }
    if (!now) return now.error();
    return false;
  }

  std::optional<Key> unwrap(std::string_view sealed, std::string_view label) const {
    for (std::size_t i = keys.size(); i-- > 1;) {
      std::optional<std::string> plain = open_sealed(keys[i], sealed, label);
      if (!plain || plain->size() != sizeof(Key)) continue;
      Key key;
      std::memcpy(key.data(), plain->data(), key.size());
      return key;
    }
    return std::nullopt;
  }

  Status write(const std::vector<std::string>& hex) {
    if (Status written = write_copies(path, hex); !written) return written;
    copies.clear();
    for (const std::string& one : hex) copies.push_back(*from_hex(one));
    return {};
  }

  std::string plain() const {
    std::string bytes;
    for (const Key& key : keys) bytes += view(key);
    return bytes;
  }
};

std::string KeyRing::path_in(const std::string& journal) { return journal + "/keys"; }

Result<std::string> KeyRing::sealed_in(const std::string& journal) {
  auto copies = read_copies(path_in(journal));
  if (!copies) return copies.error();
  std::vector<std::string> hex;
  for (const std::string& copy : *copies) hex.push_back(to_hex(copy));
  return ring_of(hex);
}

Result<KeyRing> KeyRing::open(const std::string& journal, const MasterKeySource& source) {
  auto state = std::make_shared<State>(path_in(journal), source);
  if (auto read = state->read(); !read) return read.error();
  return KeyRing(std::move(state));
}

Result<KeyRing> KeyRing::open_or_create(const std::string& journal, const MasterKeySource& source, bool is_new) {
  std::error_code ignored;
  bool has_ring = std::filesystem::exists(path_in(journal), ignored);
  if (!has_ring && is_new) {
    Result<Key> master = read_master_key(source);
    bool makes_key = !master && master.error().code == ErrorCode::not_found;
    if (makes_key) {
      if (Status made = make_folder(std::filesystem::path(source.file).parent_path().string()); !made) return made.error();
      master = create_key_file(source.file);
    }
    if (!master) return master.error();
    std::string plain;
    for (int i = 0; i < 2; ++i) plain += view(random_key());
    if (Status written = write_copies(path_in(journal), {seal_hex(*master, plain)}); !written) return written.error();
  }
  Result<KeyRing> ring = open(journal, source);
  if (!ring) {
    if (ring.error().code == ErrorCode::not_found)
      return Error{ErrorCode::not_found, fmt::format("{}, but {} holds a journal. Restore it from your backup (without it the journal cannot "
                                                     "be read), or give journal.path a new folder",
                                                     ring.error().message, journal)};
    return ring;
  }
  if (auto finished = ring->finish_rekey(source); !finished) return finished.error();
  return ring;
}

std::string KeyRing::wrap(const Key& key, std::string_view label) const {
  std::lock_guard lock(state_->mutex);
  std::string sealed;
  seal(state_->keys.back(), view(key), label, sealed);
  return sealed;
}

std::optional<Key> KeyRing::unwrap(std::string_view sealed, std::string_view label) const {
  std::lock_guard lock(state_->mutex);
  std::optional<Key> key = state_->unwrap(sealed, label);
  if (key) return key;
  auto read = state_->read();
  return read && *read ? state_->unwrap(sealed, label) : std::nullopt;
}

Key KeyRing::base_key() const {
  std::lock_guard lock(state_->mutex);
  return state_->keys.front();
}

Status KeyRing::check_key_file(const MasterKeySource& source) const {
  std::error_code failure;
  auto kind = std::filesystem::status(source.file, failure).type();
  bool is_file = kind == std::filesystem::file_type::regular || kind == std::filesystem::file_type::not_found;
  if (!source.command.empty() || !is_file) return {};  // what a pipe gives, it gives once
  constexpr int looks = 2;                             // a rekey may come between reading the key and the ring
  for (int i = 0; i < looks; ++i) {
    Result<Key> master = read_master_key(source);
    if (!master) return master.error();
    std::lock_guard lock(state_->mutex);
    for (const std::string& copy : state_->copies)
      if (open_sealed(*master, copy, ring_associated)) return {};
  }
  return Error{ErrorCode::wrong_key, source.name() + ": this is another key, and does not open this journal"};
}

Status KeyRing::rekey(const MasterKeySource& source, const std::string& new_key, bool is_lost) {
  std::lock_guard lock(state_->mutex);
  Result<Key> now = read_master_key(source);
  if (!now && !is_lost) return now.error();
  bool is_in_file = source.command.empty();
  bool is_nowhere = !now && (!is_in_file || now.error().code == ErrorCode::not_found);
  if (is_lost && !is_nowhere)
    return Error{ErrorCode::invalid, source.name() + ": is there; should it not have this journal's key, put it aside first"};
  std::string next = next_path(source.file);
  Result<Key> then = read_master_key({new_key.empty() ? next : new_key, ""});
  // An interrupted run's new key may be in the ring already: it is the one to go on with.
  bool makes_key = new_key.empty() && !then && then.error().code == ErrorCode::not_found;
  if (makes_key) then = create_key_file(next);
  if (!then) return then.error();
  if (now && *now == *then) return Error{ErrorCode::invalid, fmt::format("{}: this is the key that is in use already", new_key)};
  std::vector<Key> before = state_->keys;
  state_->keys.push_back(random_key());
  std::string plain = state_->plain();
  std::vector<std::string> copies;
  if (now) copies.push_back(seal_hex(*now, plain));
  for (const std::string& copy : is_lost ? state_->copies : std::vector<std::string>()) copies.push_back(to_hex(copy));
  copies.push_back(seal_hex(*then, plain));
  if (Status written = state_->write(copies); !written) {
    state_->keys = before;
    return written;
  }
  if (!is_in_file) return {};
  if (!new_key.empty())
    if (Status copied = write_file(next, to_hex(view(*then)) + "\n"); !copied) return copied;
  give_like(next, source.file);
  if (std::rename(next.c_str(), source.file.c_str()) != 0) return lmdb_error(errno, source.file);
  if (Status synced = sync_folder_of(source.file); !synced) return synced;
  return state_->write({seal_hex(*then, plain)});
}

Result<bool> KeyRing::put_back() {
  std::lock_guard lock(state_->mutex);
  std::error_code failure;
  std::uintmax_t size = std::filesystem::file_size(state_->path, failure);
  bool is_lost = failure == std::errc::no_such_file_or_directory || (!failure && size == 0);
  if (!is_lost) return false;
  std::vector<std::string> hex;
  for (const std::string& copy : state_->copies) hex.push_back(to_hex(copy));
  if (Status written = state_->write(hex); !written) return written.error();
  return true;
}

Result<bool> KeyRing::finish_rekey(const MasterKeySource& source) {
  std::lock_guard lock(state_->mutex);
  auto copies = read_copies(state_->path);
  if (!copies) return copies.error();
  if (copies->size() == 1) return true;
  Result<Key> master = read_master_key(source);
  if (!master) return master.error();
  if (!open_sealed(*master, copies->back(), ring_associated)) return false;
  if (Status written = state_->write({to_hex(copies->back())}); !written) return written.error();
  return true;
}

}  // namespace holdfast::journal
