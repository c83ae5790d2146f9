#include "journal/files.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/magic.h>
#include <sys/file.h>
#include <sys/fsuid.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/vfs.h>

#include <cerrno>
#include <chrono>
#include <cstring>
#include <filesystem>
#include <optional>
#include <thread>

namespace holdfast::journal {
namespace {

Error failed(const std::string& path, const char* what) {
  int reason = errno;
  ErrorCode code = reason == ENOSPC || reason == EDQUOT                     ? ErrorCode::no_space
                   : reason == EACCES || reason == EROFS || reason == EPERM ? ErrorCode::permission
                                                                            : ErrorCode::io;
  std::string remedy = code == ErrorCode::permission ? "; give the user that runs Holdfast write access to it" : "";
  return Error{code, fmt::format("{}: cannot {}: {}{}", path, what, std::strerror(reason), remedy)};
}

constexpr std::string_view command_mark = " command";

struct Holder {
  std::string process;
  bool is_command;
};

/// What whoever has the lock has written into the file.
Holder holder_of(int file) {
  char text[64];
  ssize_t size = read_at(file, text, 0);
  std::string_view held(text, size > 0 ? static_cast<std::size_t>(size) : 0);
  std::string process(held.substr(0, held.find_first_of(" \n")));
  bool is_command = held.substr(process.size()).starts_with(command_mark);
  return {process.empty() ? "unknown" : process, is_command};
}

std::string folder_of(const std::string& path) {
  std::string folder = std::filesystem::path(path).parent_path().string();
  if (folder.empty()) folder.assign(1, '.');  // g++ 12 sees an overlap in an assignment of "."
  return folder;
}

}  // namespace

AsOwner::AsOwner(const std::string& path) {
  struct stat status;
  if (::geteuid() != 0 || (::lstat(path.c_str(), &status) != 0 && ::stat(folder_of(path).c_str(), &status) != 0) || status.st_uid == 0) return;
  // The kernel knows these by thread. Where root may not become others (a container), it stays root.
  is_other_ = true;
  ::setfsgid(status.st_gid);
  ::setfsuid(status.st_uid);
}

AsOwner::~AsOwner() {
  if (!is_other_) return;
  ::setfsuid(::geteuid());
  ::setfsgid(::getegid());
}

Status sync_folder_of(const std::string& path) {
  std::string folder = folder_of(path);
  FileDescriptor file(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!file || ::fsync(file.get()) != 0) return failed(folder, "sync the folder");
  return {};
}

Status make_folder(const std::string& path) {
  std::filesystem::path folder(path);
  if (std::error_code ignored; folder.has_parent_path() && !std::filesystem::exists(folder.parent_path(), ignored))
    if (Status parent = make_folder(folder.parent_path().string()); !parent) return parent;
  AsOwner owner(path);
  if (::mkdir(path.c_str(), 0700) != 0 && errno != EEXIST) return failed(path, "make the folder");
  struct stat status;
  if (::stat(path.c_str(), &status) != 0 || !S_ISDIR(status.st_mode)) {
    errno = ENOTDIR;
    return failed(path, "use it as a folder");
  }
  return {};
}

bool write_all(int file, std::string_view bytes) {
  while (!bytes.empty()) {
    ssize_t written = ::write(file, bytes.data(), bytes.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return false;
    bytes.remove_prefix(static_cast<std::size_t>(written));
  }
  return true;
}

bool write_all_at(int file, std::string_view bytes, std::uint64_t offset) {
  while (!bytes.empty()) {
    ssize_t written = ::pwrite(file, bytes.data(), bytes.size(), static_cast<off_t>(offset));
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return false;
    bytes.remove_prefix(static_cast<std::size_t>(written));
    offset += static_cast<std::uint64_t>(written);
  }
  return true;
}

ssize_t read_at(int file, std::span<char> buffer, std::uint64_t offset) {
  std::size_t filled = 0;
  while (filled < buffer.size()) {
    ssize_t got = ::pread(file, buffer.data() + filled, buffer.size() - filled, static_cast<off_t>(offset + filled));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return -1;
    if (got == 0) break;
    filled += static_cast<std::size_t>(got);
  }
  return static_cast<ssize_t>(filled);
}

Result<FileDescriptor> lock_folder(const std::string& path) {
  FileDescriptor folder(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!folder) return failed(path, "open the folder");
  bool is_taken = ::flock(folder.get(), LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK;
  if (is_taken) return Error{ErrorCode::busy, path + ": another holdfast command is writing there; try again when it has ended"};
  return folder;
}

Status write_file(const std::string& path, std::string_view content, unsigned mode) {
  std::string draft = path + ".new";
  AsOwner owner(draft);
  FileDescriptor file(::open(draft.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, mode));
  if (!file) return failed(path, "write");
  if (!write_all(file.get(), content) || ::fsync(file.get()) != 0 || ::rename(draft.c_str(), path.c_str()) != 0) {
    Error error = failed(path, "write");
    ::unlink(draft.c_str());
    return error;
  }
  return sync_folder_of(path);
}

void give_like(const std::string& path, const std::string& before) {
  struct stat status;
  if (::stat(before.c_str(), &status) != 0) return;
  [[maybe_unused]] int given = ::lchown(path.c_str(), status.st_uid, status.st_gid);
  ::chmod(path.c_str(), status.st_mode & 07777);
}

std::uint64_t free_space(const std::string& path) {
  struct statvfs disk {};
  if (::statvfs(path.c_str(), &disk) != 0) return UINT64_MAX;
  return static_cast<std::uint64_t>(disk.f_bavail) * disk.f_frsize;
}

std::string doubt_about_disk(const std::string& path) {
  std::filesystem::path place = std::filesystem::absolute(path);
  struct statfs system {};
  while (::statfs(place.c_str(), &system) != 0) {
    if (errno != ENOENT || place == place.parent_path()) return "";
    place = place.parent_path();
  }
  switch (static_cast<std::uint32_t>(system.f_type)) {
    case TMPFS_MAGIC:
    case RAMFS_MAGIC: return "it is in memory: nothing in it outlives this machine's next start";
    case NFS_SUPER_MAGIC:
    case SMB_SUPER_MAGIC:
    case SMB2_SUPER_MAGIC:
    case CIFS_SUPER_MAGIC:
    case V9FS_MAGIC: return "it is on another machine's disk: its map and its locks are made for a disk of this machine";
    default: return "";
  }
}

ino_t file_number(const std::string& path) {
  struct stat status;
  return ::stat(path.c_str(), &status) == 0 ? status.st_ino : 0;
}

bool is_within(const std::string& path, const std::string& folder) {
  std::error_code ignored;
  std::filesystem::path place = std::filesystem::weakly_canonical(std::filesystem::absolute(path), ignored);
  for (;; place = place.parent_path()) {
    if (std::filesystem::equivalent(place, folder, ignored)) return true;
    if (place == place.parent_path()) return false;
  }
}

Result<FileDescriptor> lock_file(const std::string& path, const LockHolder& self) {
  FileDescriptor file;
  {
    AsOwner owner(path);
    file = FileDescriptor(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
    if (!file) return failed(path, "open the lock file");
  }
  std::optional<std::string> seen;
  bool has_told = false;
  while (::flock(file.get(), LOCK_EX | LOCK_NB) != 0) {
    if (errno != EWOULDBLOCK) return failed(path, "lock");
    auto [process, is_command] = holder_of(file.get());
    // Who has just got the lock may not have written who it is.
    if (!is_command && seen != process) {
      seen = process;
      std::this_thread::sleep_for(std::chrono::milliseconds(50));
      continue;
    }
    if (!is_command)
      return Error{ErrorCode::busy, self.is_command
                                        ? fmt::format("{}: Holdfast (process {}) writes this journal, and could not be asked at admin.socket; "
                                                      "is it set, and may you use it? Else stop it first",
                                                      path, process)
                                        : fmt::format("{}: another Holdfast (process {}) already writes this journal; stop it first, or give "
                                                      "this one a journal.path of its own",
                                                      path, process)};
    if (!self.on_wait)
      return Error{ErrorCode::busy, fmt::format("{}: another holdfast command (process {}) has this journal open; try again when "
                                                "it has ended",
                                                path, process)};
    if (!std::exchange(has_told, true))
      self.on_wait(
          fmt::format("{}: a holdfast command (process {}) has this journal open; waiting until it has ended. It may be "
                      "killed: nothing is lost, and it can be run again",
                      path, process));
    // More often than commands try: the mail waits for us.
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  std::string mine = fmt::format("{}{}\n", ::getpid(), self.is_command ? command_mark : "");
  // A courtesy to whoever meets the lock, who must not see a part of it; failing to write it (a full disk) changes nothing.
  if (write_all_at(file.get(), mine, 0)) [[maybe_unused]]
    int cut = ::ftruncate(file.get(), static_cast<off_t>(mine.size()));
  return file;
}

DaemonLock daemon_lock(const std::string& path) {
  FileDescriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!file || holder_of(file.get()).is_command) return DaemonLock::none;
  bool is_held = ::flock(file.get(), LOCK_SH | LOCK_NB) != 0 && errno == EWOULDBLOCK;
  return is_held ? DaemonLock::held : DaemonLock::left;
}

}  // namespace holdfast::journal
