// Small things about files that several parts of the journal need: an owned descriptor, a lock, a synced folder.
#pragma once

#include <sys/types.h>
#include <unistd.h>

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include "journal/result.h"

namespace holdfast {

/// Owns a file descriptor.
class FileDescriptor {
 public:
  explicit FileDescriptor(int fd = -1) : fd_(fd) {}
  FileDescriptor(FileDescriptor&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  FileDescriptor& operator=(FileDescriptor&& other) noexcept {
    if (this != &other) {
      reset();
      fd_ = std::exchange(other.fd_, -1);
    }
    return *this;
  }
  ~FileDescriptor() { reset(); }

  explicit operator bool() const { return fd_ >= 0; }
  int get() const { return fd_; }
  int release() { return std::exchange(fd_, -1); }
  void reset() {
    if (fd_ >= 0) ::close(std::exchange(fd_, -1));
  }

 private:
  int fd_;
};

namespace journal {

/// While it lives, root's thread opens and makes files as the owner of the one at path; where there is none,
/// of its folder. So what root's commands leave in a journal is the daemon's user's, and a link that this
/// user puts there leads root nowhere else. Others stay who they are.
class AsOwner {
 public:
  explicit AsOwner(const std::string& path);
  AsOwner(const AsOwner&) = delete;
  AsOwner& operator=(const AsOwner&) = delete;
  ~AsOwner();

 private:
  bool is_other_ = false;
};

/// Writes all of it, on from where the file stands. Returns false when that fails; errno says why.
bool write_all(int file, std::string_view bytes);

/// Writes all of it there. Returns false when that fails; errno says why.
bool write_all_at(int file, std::string_view bytes, std::uint64_t offset);

/// Fills the buffer from there on. Returns how many bytes are in it, fewer only at the file's end; -1 when reading fails, and
/// errno says why.
ssize_t read_at(int file, std::span<char> buffer, std::uint64_t offset);

/// Makes names that were created, renamed or removed in the folder of path survive a power loss.
Status sync_folder_of(const std::string& path);

/// Makes the folder (mode 0700) and its parents when missing. Errors name what is in the way.
Status make_folder(const std::string& path);

/// For who fills a folder alone: a lock on it, which lasts as long as the descriptor. Where folders cannot be locked (some network file
/// systems), there is none. Errors: busy; not_found and permission.
Result<FileDescriptor> lock_folder(const std::string& path);

/// Puts a file there, or in the place of the one there: whole or not at all, and synced.
Status write_file(const std::string& path, std::string_view content, unsigned mode = 0600);

/// Gives a file the owner, the group and the mode of the one that it is to replace, as far as we may.
void give_like(const std::string& path, const std::string& before);

/// Bytes that are free on the disk of what is at path; what no disk has when that cannot be told.
std::uint64_t free_space(const std::string& path);

/// Why a journal should not be there, or in a folder that will be made there; empty when nothing speaks against it.
std::string doubt_about_disk(const std::string& path);

/// Whether it is the folder, or in it, by whatever name; what is not there yet would be.
bool is_within(const std::string& path, const std::string& folder);

/// Which file has that name at the moment; 0 when none has.
ino_t file_number(const std::string& path);

/// Who wants a lock.
struct LockHolder {
  bool is_command = false;  ///< it ends by itself, when its work is done
  /// Not empty: waits as long as a command has the lock, and says so here, once.
  std::function<void(const std::string&)> on_wait;
};

/// Takes an exclusive lock on the file at path, which is made when missing, and writes into it who we are. The lock lasts as long
/// as the descriptor. Error: busy, with the holder's process id.
Result<FileDescriptor> lock_file(const std::string& path, const LockHolder& self);

/// Whether a daemon has such a lock, or was the last to have it.
enum class DaemonLock { none, held, left };
DaemonLock daemon_lock(const std::string& path);

}  // namespace journal
}  // namespace holdfast
