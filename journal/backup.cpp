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
#include <sstream>
#include <thread>

#include "journal/catalog.h"
#include "journal/files.h"
#include "journal/head.h"
#include "journal/manifest.h"
#include "journal/record.h"
#include "journal/segment.h"

namespace holdfast::journal {
namespace {

std::string text_of(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

bool exists(const std::string& path) {
  return ::access(path.c_str(), F_OK) == 0;
}

/// What was written is brought to the disk bit by bit, with longer pauses between: commits of mail must not wait behind a backup.
void let_mail_pass(int file, std::chrono::steady_clock::time_point since) {
  ::fdatasync(file);
  std::this_thread::sleep_for(3 * (std::chrono::steady_clock::now() - since));
}

/// Copies the bytes to a file that has not its name yet.
Status copy_bytes(const std::string& from, const std::string& to) {
  FileDescriptor in(::open(from.c_str(), O_RDONLY | O_CLOEXEC));
  if (!in) return lmdb_error(errno, from);
  FileDescriptor out(::open(to.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
  if (!out) return lmdb_error(errno, to);
  for (;;) {
    auto begin = std::chrono::steady_clock::now();
    ssize_t copied = ::copy_file_range(in.get(), nullptr, out.get(), nullptr, 256 << 10, 0);
    if (copied == 0) break;
    if (copied < 0 && errno == EINTR) continue;
    if (copied > 0) {
      let_mail_pass(out.get(), begin);
      continue;
    }
    if (errno != EXDEV && errno != EINVAL && errno != ENOSYS && errno != EOPNOTSUPP)
      return lmdb_error(errno, to);
    // Between file systems that cannot do it themselves.
    char buffer[1 << 16];
    ssize_t got = ::read(in.get(), buffer, sizeof buffer);
    if (got == 0) break;
    if (got < 0) return lmdb_error(errno, from);
    for (ssize_t done = 0; done < got;) {
      ssize_t written = ::write(out.get(), buffer + done, static_cast<std::size_t>(got - done));
      if (written < 0 && errno != EINTR) return lmdb_error(errno, to);
      if (written > 0) done += written;
    }
  }
  if (::fsync(out.get()) != 0) return lmdb_error(errno, to);
  return {};
}

class Backup {
 public:
  Backup(std::string journal, std::string folder)
      : journal_(std::move(journal)), folder_(std::move(folder)) {}

  Status prepare() {
    std::error_code failure;
    std::string own_key = text_of(SigningKey::public_path(journal_)),
                key_there = text_of(SigningKey::public_path(folder_));
    // The key comes first, so that an interrupted run leaves a folder that is known.
    std::filesystem::remove(SigningKey::public_path(folder_) + ".new", failure);
    bool is_empty = !exists(folder_) || std::filesystem::is_empty(folder_, failure);
    if (!is_empty && key_there != own_key)
      return Error{
          ErrorCode::busy,
          fmt::format("{}: is not empty, and no backup of this journal; name a folder of its own", folder_)};
    if (Status made = make_folder(folder_); !made) return made;
    if (Status written = write_file(SigningKey::public_path(folder_), own_key, 0644); !written)
      return written;
    for (const std::string& one : {segment_folder(folder_), head_folder(folder_)})
      if (Status made = make_folder(one); !made) return made;
    return {};
  }

  /// A segment that is written no more. When it was rewritten while it was copied, it is copied again.
  Status copy_sealed(std::uint32_t number) {
    for (int tries = 0;; ++tries) {
      std::string manifest = text_of(manifest_path(journal_, number));
      std::string path = segment_path(folder_, number), draft = path + ".part";
      if (!manifest.empty() && manifest == text_of(manifest_path(folder_, number)) && exists(path))
        return ++result.unchanged, Status();
      if (Status copied = copy_bytes(segment_path(journal_, number), draft); !copied)
        return discard(draft, copied);
      std::error_code ignored;
      std::uint64_t size = std::filesystem::file_size(draft, ignored);
      if (!manifest.empty()) {
        if (Status written = write_file(manifest_path(folder_, number) + ".next", manifest); !written)
          return discard(draft, written);
      }
      if (std::rename(draft.c_str(), path.c_str()) != 0) return discard(draft, lmdb_error(errno, path));
      if (Status synced = sync_folder_of(path); !synced) return synced;
      if (!manifest.empty())
        if (Status taken = take_next_manifest(folder_, number); !taken) return taken;
      std::vector<std::string> problems =
          manifest.empty() ? std::vector<std::string>() : check_manifest(folder_, number, nullptr, {});
      if (problems.empty()) return ++result.copied, result.bytes += size, Status();
      bool was_rewritten = text_of(manifest_path(journal_, number)) != manifest;
      if (!was_rewritten || tries > 3)
        return Error{ErrorCode::corrupt, problems.front() + "; run: holdfast journal verify"};
    }
  }

  /// A file that LMDB may be writing at this moment.
  Status copy_live(const std::string& from, const std::string& to) {
    std::string draft = to + ".part";
    ::unlink(draft.c_str());
    auto environment = Environment::open(from, Environment::Mode::read, 0);
    if (!environment) return environment.error();
    if (int code = mdb_env_copy2(environment->get(), draft.c_str(), 0))
      return discard(draft, lmdb_error(code, draft));
    FileDescriptor file(::open(draft.c_str(), O_RDONLY | O_CLOEXEC));
    if (!file || ::fsync(file.get()) != 0 || std::rename(draft.c_str(), to.c_str()) != 0)
      return discard(draft, lmdb_error(errno, to));
    std::error_code ignored;
    result.bytes += std::filesystem::file_size(to, ignored);
    return sync_folder_of(to);
  }

  /// Of the segments before the newest: that one may have been sealed since it was copied.
  Status copy_heads(std::uint32_t newest) {
    for (std::uint32_t number : list_heads(journal_)) {
      if (number >= newest) continue;
      auto line = read_head(journal_, number);
      if (!line) return line.error();
      if (text_of(head_path(folder_, number)) == *line + "\n") continue;
      if (Status written = write_head(folder_, number, *line); !written) return written;
    }
    return {};
  }

  Status remove_gone(const std::vector<std::uint32_t>& numbers) {
    auto there = list_segments(folder_);
    if (!there) return there.error();
    std::error_code ignored;
    for (std::uint32_t number : *there) {
      if (std::find(numbers.begin(), numbers.end(), number) != numbers.end()) continue;
      std::filesystem::remove(segment_path(folder_, number), ignored);
      std::filesystem::remove(manifest_path(folder_, number), ignored);
      ++result.removed;
    }
    return {};
  }

  BackedUp result;

 private:
  static Status discard(const std::string& draft, const Status& why) {
    ::unlink(draft.c_str());
    return why;
  }

  std::string journal_, folder_;
};

}  // namespace

std::string backup_mark(const std::string& folder) { return folder + "/backup"; }

Result<BackedUp> back_up(const std::string& journal, const std::string& folder,
                         const std::function<void(double)>& on_progress) {
  auto numbers = list_segments(journal);
  if (!numbers) return numbers.error();
  if (numbers->empty())
    return Error{ErrorCode::not_found, fmt::format("{}: there is no journal here", journal)};
  Backup backup(journal, folder);
  if (Status prepared = backup.prepare(); !prepared) return prepared.error();
  if (Status marked = write_file(backup_mark(folder), fmt::format("{}\n", now_us())); !marked) return marked.error();
  std::uint32_t pruned_to = 0;
  for (std::size_t i = 0; i < numbers->size(); ++i) {
    std::uint32_t number = (*numbers)[i];
    bool is_newest = i + 1 == numbers->size();
    Status copied = is_newest ? backup.copy_live(segment_path(journal, number), segment_path(folder, number))
                              : backup.copy_sealed(number);
    bool is_pruned = !copied && copied.error().code == ErrorCode::not_found && !exists(segment_path(journal, number));
    if (is_pruned) {
      pruned_to = number;
      continue;
    }
    if (!copied) return copied.error();
    backup.result.copied += is_newest;
    if (on_progress) on_progress(static_cast<double>(i + 1) / static_cast<double>(numbers->size()));
  }
  if (Status copied = backup.copy_heads(numbers->back()); !copied) return copied.error();
  for (const char* store : {"/directory.lmdb", "/mailboxes.lmdb"})
    if (exists(journal + store))
      if (Status copied = backup.copy_live(journal + store, folder + store); !copied) return copied.error();
  // After the segments: it has all keys that they need.
  if (Status written = write_file(KeyRing::path_in(folder), text_of(KeyRing::path_in(journal))); !written) return written.error();
  std::erase_if(*numbers, [&](std::uint32_t number) { return number <= pruned_to; });
  if (Status removed = backup.remove_gone(*numbers); !removed) return removed.error();
  return backup.result;
}

}  // namespace holdfast::journal
