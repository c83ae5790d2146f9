#include "journal/backup.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <optional>
#include <sstream>
#include <thread>
#include <utility>

#include "journal/catalog.h"
#include "journal/files.h"
#include "journal/head.h"
#include "journal/manifest.h"
#include "journal/record.h"
#include "journal/segment.h"
#include "journal/signing.h"

namespace holdfast::journal {
namespace {

std::string text_of(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

bool exists(const std::string& path) { return ::access(path.c_str(), F_OK) == 0; }

/// What was written is brought to the disk bit by bit, with longer pauses between: commits of mail must not wait behind a backup.
void let_mail_pass(int file, std::chrono::steady_clock::time_point since) {
  ::fdatasync(file);
  std::this_thread::sleep_for(3 * (std::chrono::steady_clock::now() - since));
}

/// Goes over what cannot be read, to the next block; zeros take its place in the buffer. Returns where it began, and its size; nothing when
/// that fails too.
std::optional<std::pair<off_t, ssize_t>> skip_block(int file, char* buffer) {
  constexpr off_t block = 4096;
  struct stat info {};
  off_t at = ::lseek(file, 0, SEEK_CUR);
  if (at < 0 || ::fstat(file, &info) != 0 || info.st_size <= at) return std::nullopt;
  off_t end = std::min<off_t>((at / block + 1) * block, info.st_size);
  if (::lseek(file, end, SEEK_SET) < 0) return std::nullopt;
  std::memset(buffer, 0, block);
  return std::pair(at, static_cast<ssize_t>(end - at));
}

/// Copies the bytes to a file that has not its name yet. Returns which of them the disk does not give, zeros are there then; empty when all
/// are there.
Result<std::string> copy_bytes(const std::string& from, const std::string& to) {
  FileDescriptor in(::open(from.c_str(), O_RDONLY | O_CLOEXEC));
  if (!in) return lmdb_error(errno, from);
  AsOwner owner(to);
  FileDescriptor out(::open(to.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
  if (!out) return lmdb_error(errno, to);
  std::string missing;
  for (;;) {
    auto begin = std::chrono::steady_clock::now();
    ssize_t copied = ::copy_file_range(in.get(), nullptr, out.get(), nullptr, 256 << 10, 0);
    if (copied == 0) break;
    if (copied < 0 && errno == EINTR) continue;
    if (copied > 0) {
      let_mail_pass(out.get(), begin);
      continue;
    }
    if (errno != EXDEV && errno != EINVAL && errno != ENOSYS && errno != EOPNOTSUPP && errno != EIO) return lmdb_error(errno, to);
    // Between file systems that cannot do it themselves; and where one cannot, to see which.
    char buffer[1 << 16];
    ssize_t got = ::read(in.get(), buffer, sizeof buffer);
    if (got == 0) break;
    if (got < 0 && errno != EIO) return lmdb_error(errno, from);
    if (got < 0) {
      auto skipped = skip_block(in.get(), buffer);
      if (!skipped) return lmdb_error(errno, from);
      if (missing.empty()) missing = fmt::format("the disk does not give the bytes from {} on: {}", skipped->first, std::strerror(EIO));
      got = skipped->second;
    }
    if (!write_all(out.get(), {buffer, static_cast<std::size_t>(got)})) return lmdb_error(errno, to);
  }
  if (::fsync(out.get()) != 0) return lmdb_error(errno, to);
  return missing;
}

/// Whether all items of a store can be reached; whether their values are whole, only who has the key can tell.
Status walk_through(const std::string& path) {
  auto store = Environment::open(path, Environment::Mode::sealed, 0);
  if (!store) return store.error();
  auto transaction = Transaction::begin(*store, Environment::Mode::read);
  if (!transaction) return transaction.error();
  auto cursor = Cursor::open(*transaction);
  if (!cursor) return cursor.error();
  auto item = cursor->at_or_after(std::string_view("\0", 1));
  while (item && *item) item = cursor->next();
  return item ? Status() : item.error();
}

class Backup {
 public:
  Backup(std::string journal, std::string folder, const std::function<void(double)>& on_progress)
      : journal_(std::move(journal)), folder_(std::move(folder)), on_progress_(on_progress) {}

  Status run() {
    auto numbers = list_segments(journal_);
    if (!numbers) return numbers.error();
    if (numbers->empty()) return Error{ErrorCode::not_found, fmt::format("{}: there is no journal here", journal_)};
    numbers_ = *numbers;
    if (Status fit = check_place(); !fit) return fit;
    if (Status made = make_folder(folder_); !made) return made;
    // Two at once would take each other's drafts away.
    auto lock = lock_folder(folder_);
    if (!lock) return lock.error();
    if (Status prepared = prepare(); !prepared) return prepared;
    if (Status marked = write_file(backup_mark(folder_), fmt::format("{}\n", now_us())); !marked) return marked;
    // A segment that has its head by now has its manifest when it is copied.
    std::vector<std::uint32_t> heads = list_heads(journal_);
    if (Status copied = copy_segments(); !copied) return copied;
    if (Status copied = copy_heads(heads); !copied) return copied;
    for (const char* store : {"/directory.lmdb", "/mailboxes.lmdb"})
      if (exists(journal_ + store))
        if (Status copied = past_damage(copy_store(store)); !copied) return copied;
    // After the segments: it has all keys that they need.
    if (Status copied = past_damage(copy_key_ring()); !copied) return copied;
    return remove_gone();
  }

  BackedUp result;

 private:
  /// What a daemon writes, or has written, must not be replaced under it.
  Status check_place() const {
    constexpr std::string_view remedy = "name a folder of its own";
    if (is_within(folder_, journal_)) return Error{ErrorCode::busy, fmt::format("{}: is in the journal itself; {}", folder_, remedy)};
    DaemonLock lock = daemon_lock(daemon_lock_path(folder_));
    if (lock == DaemonLock::none) return {};
    return Error{ErrorCode::busy, fmt::format("{}: a daemon {} started on it, so it is a journal of its own now; {}", folder_,
                                              lock == DaemonLock::held ? "is" : "was", remedy)};
  }

  /// What is damaged keeps nothing else from the backup, and is told.
  Status past_damage(const Status& copied) {
    if (copied || !is_damage(copied.error())) return copied;
    result.damaged.push_back(copied.error().message);
    return {};
  }

  /// One that is lost or damaged does not take the place of what an earlier run has put there.
  Status copy_key_ring() {
    auto ring = KeyRing::sealed_in(journal_);
    if (!ring && ring.error().code == ErrorCode::not_found) return Error{ErrorCode::corrupt, ring.error().message};
    return ring ? write_file(KeyRing::path_in(folder_), *ring) : ring.error();
  }

  Status prepare() {
    std::error_code failure;
    std::string own_key = text_of(SigningKey::public_path(journal_)), key_there = text_of(SigningKey::public_path(folder_));
    // The key comes first, so that an interrupted run leaves a folder that is known.
    std::filesystem::remove(SigningKey::public_path(folder_) + ".new", failure);
    bool is_empty = std::filesystem::is_empty(folder_, failure);
    if (!is_empty && key_there != own_key)
      return Error{ErrorCode::busy, fmt::format("{}: is not empty, and no backup of this journal; name a folder of its own", folder_)};
    if (Status written = write_file(SigningKey::public_path(folder_), own_key, 0644); !written) return written;
    for (const std::string& one : {segment_folder(folder_), head_folder(folder_)})
      if (Status made = make_folder(one); !made) return made;
    return {};
  }

  /// All segments, the newest last; and those that were begun meanwhile: an erasure's record may stand there.
  Status copy_segments() {
    std::uint32_t pruned_to = 0;
    for (std::size_t i = 0; i < numbers_.size(); ++i) {
      std::uint32_t number = numbers_[i];
      Status copied = copy_segment(number);
      bool is_pruned = !copied && copied.error().code == ErrorCode::not_found && !exists(segment_path(journal_, number));
      if (Status rest = is_pruned ? Status() : past_damage(copied); !rest) return rest;
      if (is_pruned) pruned_to = number;
      if (on_progress_) on_progress_(static_cast<double>(i + 1) / static_cast<double>(numbers_.size()));
    }
    std::erase_if(numbers_, [&](std::uint32_t number) { return number <= pruned_to; });
    return {};
  }

  Status copy_segment(std::uint32_t number) {
    bool is_newest = number == numbers_.back() && !finds_more();
    if (is_newest) {
      auto copied = copy_newest(number);
      if (!copied) return copied.error();
      if (*copied) return ++result.copied, Status();
      finds_more();
    }
    return copy_sealed(number);
  }

  /// Lists the segments that were begun since. A backup that is slower than the mail does not follow it for
  /// ever.
  bool finds_more() {
    auto numbers = list_segments(journal_);
    if (!numbers || rounds_ == most_rounds) return false;
    auto more = std::upper_bound(numbers->begin(), numbers->end(), numbers_.back());
    if (more == numbers->end()) return false;
    ++rounds_;
    numbers_.insert(numbers_.end(), more, numbers->end());
    return true;
  }

  /// The segment that is still written. False when it is so no more.
  Result<bool> copy_newest(std::uint32_t number) {
    std::string path = segment_path(journal_, number);
    ino_t file = file_number(path);
    auto is_sealed = [&] { return exists(segment_path(journal_, number + 1)) || file_number(path) != file; };
    if (is_sealed()) return false;
    if (Status copied = copy_live(path, segment_path(folder_, number)); !copied) return copied.error();
    return file_number(path) == file;
  }

  /// A segment that is written no more. When it was sealed or rewritten while it was copied, it is copied
  /// again.
  Status copy_sealed(std::uint32_t number) {
    std::string path = segment_path(folder_, number), draft = path + ".part";
    for (int tries = 0;; ++tries) {
      std::vector<std::string> manifests = manifests_of(number);
      bool is_there = manifests.size() == 1 && manifests[0] == text_of(manifest_path(folder_, number)) && exists(path);
      if (is_there) return ++result.unchanged, Status();
      auto missing = copy_bytes(segment_path(journal_, number), draft);
      if (!missing) return discard(draft, missing.error());
      auto fits = fit(number, draft, manifests);
      if (!fits) return discard(draft, fits.error());
      const std::string& problem = missing->empty() ? *fits : *missing;
      bool was_touched = manifests_of(number) != manifests;
      bool is_good = problem.empty() && !(manifests.empty() && was_touched);
      if (is_good) return put(number, draft, !manifests.empty());
      if (!was_touched) return keep_damaged(number, draft, problem);
      if (tries == most_tries)
        return discard(draft, Error{ErrorCode::busy, fmt::format("{}: it was rewritten again and again while it was copied; run this again",
                                                                 segment_path(journal_, number))});
    }
  }

  /// A damaged segment is better than none, but not than what an earlier run has put there. It gets no manifest, so that each run tells of it.
  Status keep_damaged(std::uint32_t number, const std::string& draft, std::string problem) {
    std::string path = segment_path(journal_, number);
    if (problem.starts_with(draft + ": ")) problem.erase(0, draft.size() + 2);
    if (exists(segment_path(folder_, number)))
      return discard(draft, Error{ErrorCode::corrupt, fmt::format("{}: {}; the copy of an earlier run stays in the backup", path, problem)});
    if (Status there = put(number, draft, false); !there) return there;
    return Error{ErrorCode::corrupt, fmt::format("{}: {}; it is in the backup as it is", path, problem)};
  }

  /// None while the segment is not sealed, and two while another file is put in its place: one of them fits.
  std::vector<std::string> manifests_of(std::uint32_t number) const {
    std::vector<std::string> found;
    for (const std::string& path : {manifest_path(journal_, number), next_manifest_path(journal_, number)})
      if (std::string text = text_of(path); !text.empty()) found.push_back(std::move(text));
    return found;
  }

  /// Writes the manifest that fits as the next one. Returns what is wrong when none does.
  Result<std::string> fit(std::uint32_t number, const std::string& draft, const std::vector<std::string>& manifests) {
    std::string next = next_manifest_path(folder_, number);
    std::vector<std::string> problems;
    for (const std::string& manifest : manifests) {
      if (Status written = write_file(next, manifest); !written) return written.error();
      problems = check_against(next, draft, number, nullptr, {});
      if (problems.empty()) return std::string();
    }
    ::unlink(next.c_str());
    return problems.empty() ? std::string() : problems.front();
  }

  /// Gives a draft its name.
  Status put(std::uint32_t number, const std::string& draft, bool has_manifest) {
    std::string path = segment_path(folder_, number);
    std::error_code ignored;
    std::uint64_t size = std::filesystem::file_size(draft, ignored);
    if (std::rename(draft.c_str(), path.c_str()) != 0) return discard(draft, lmdb_error(errno, path));
    if (Status synced = sync_folder_of(path); !synced) return synced;
    if (has_manifest)
      if (Status taken = take_next_manifest(folder_, number); !taken) return taken;
    ++result.copied;
    result.bytes += size;
    return {};
  }

  /// A file that LMDB may be writing at this moment, as it is between two writes.
  Status take_snapshot(const std::string& from, const std::string& draft) {
    ::unlink(draft.c_str());
    auto environment = Environment::open(from, Environment::Mode::read, 0);
    if (!environment) return environment.error();
    AsOwner owner(draft);
    FileDescriptor file(::open(draft.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
    if (!file) return lmdb_error(errno, draft);
    if (int code = mdb_env_copyfd2(environment->get(), file.get(), 0)) return discard(draft, lmdb_error(code, draft));
    return ::fsync(file.get()) == 0 ? Status() : discard(draft, lmdb_error(errno, draft));
  }

  Status name_snapshot(const std::string& draft, const std::string& to) {
    if (std::rename(draft.c_str(), to.c_str()) != 0) return discard(draft, lmdb_error(errno, to));
    std::error_code ignored;
    result.bytes += std::filesystem::file_size(to, ignored);
    return sync_folder_of(to);
  }

  Status copy_live(const std::string& from, const std::string& to) {
    const std::string draft = to + ".part";
    Status taken = take_snapshot(from, draft);
    return taken ? name_snapshot(draft, to) : taken;
  }

  /// One that is damaged is better than none, but not than what an earlier run has put there.
  Status copy_store(const std::string& name) {
    const std::string from = journal_ + name, to = folder_ + name, draft = to + ".part";
    if (Status taken = take_snapshot(from, draft); !taken) return taken;
    Status sound = walk_through(draft);
    if (!sound && !is_damage(sound.error())) return discard(draft, sound);
    if (!sound && exists(to)) return discard(draft, Error{ErrorCode::corrupt, from + ": is damaged; the copy of an earlier run stays in the backup"});
    if (Status named = name_snapshot(draft, to); !named) return named;
    return sound ? sound : Error{ErrorCode::corrupt, from + ": is damaged; it is in the backup as it is"};
  }

  /// Of the segments before the newest: that one may have been sealed since it was copied.
  Status copy_heads(const std::vector<std::uint32_t>& heads) {
    for (std::uint32_t number : heads) {
      if (!numbers_.empty() && number >= numbers_.back()) continue;
      if (Status copied = past_damage(copy_head(number)); !copied) return copied;
    }
    return {};
  }

  /// One that is damaged does not take the place of what an earlier run has put there.
  Status copy_head(std::uint32_t number) {
    auto line = read_head(journal_, number);
    if (!line) return line.error();
    auto key = PublicKey::read(SigningKey::public_path(journal_));
    if (!key) return key.error();
    if (!is_signed_by(*line, *key)) return Error{ErrorCode::corrupt, head_path(journal_, number) + ": is no head signed by this journal's key"};
    if (text_of(head_path(folder_, number)) == *line + "\n") return {};
    return write_head(folder_, number, *line);
  }

  Status remove_gone() {
    auto there = list_segments(folder_);
    if (!there) return there.error();
    std::error_code ignored;
    for (std::uint32_t number : *there) {
      if (std::binary_search(numbers_.begin(), numbers_.end(), number)) continue;
      std::filesystem::remove(segment_path(folder_, number), ignored);
      std::filesystem::remove(manifest_path(folder_, number), ignored);
      ++result.removed;
    }
    return {};
  }

  static Status discard(const std::string& draft, const Status& why) {
    ::unlink(draft.c_str());
    return why;
  }

  static constexpr int most_rounds = 8, most_tries = 10;

  const std::string journal_, folder_;
  const std::function<void(double)>& on_progress_;
  std::vector<std::uint32_t> numbers_;  ///< the segments that are to be in the backup
  int rounds_ = 0;                      ///< so often there were more
};

}  // namespace

std::string backup_mark(const std::string& folder) { return folder + "/backup"; }

Result<BackedUp> back_up(const std::string& journal, const std::string& folder, const std::function<void(double)>& on_progress) {
  Backup backup(journal, folder, on_progress);
  if (Status done = backup.run(); !done) return done.error();
  return backup.result;
}

}  // namespace holdfast::journal
