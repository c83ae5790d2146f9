#include "journal/files.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/stat.h>

#include <cerrno>
#include <cstring>
#include <filesystem>

namespace holdfast::journal {
namespace {

Error failed(const std::string& path, const char* what) {
  int reason = errno;
  ErrorCode code = reason == ENOSPC || reason == EDQUOT                      ? ErrorCode::no_space
                   : reason == EACCES || reason == EROFS || reason == EPERM ? ErrorCode::permission
                                                                            : ErrorCode::io;
  std::string remedy = code == ErrorCode::permission ? "; give the user that runs Holdfast write access to it" : "";
  return Error{code, fmt::format("{}: cannot {}: {}{}", path, what, std::strerror(reason), remedy)};
}

}  // namespace

Status sync_folder_of(const std::string& path) {
  std::string folder = std::filesystem::path(path).parent_path().string();
  if (folder.empty()) folder.assign(1, '.');  // g++ 12 sees an overlap in an assignment of "."
  FileDescriptor file(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!file || ::fsync(file.get()) != 0) return failed(folder, "sync the folder");
  return {};
}

Status make_folder(const std::string& path) {
  std::filesystem::path folder(path);
  if (std::error_code ignored; folder.has_parent_path() && !std::filesystem::exists(folder.parent_path(), ignored))
    if (Status parent = make_folder(folder.parent_path().string()); !parent) return parent;
  if (::mkdir(path.c_str(), 0700) != 0 && errno != EEXIST) return failed(path, "make the folder");
  struct stat status;
  if (::stat(path.c_str(), &status) != 0 || !S_ISDIR(status.st_mode)) {
    errno = ENOTDIR;
    return failed(path, "use it as a folder");
  }
  return {};
}

Status write_file(const std::string& path, std::string_view content, unsigned mode) {
  std::string draft = path + ".new";
  FileDescriptor file(::open(draft.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, mode));
  if (!file) return failed(path, "write");
  std::string_view left = content;
  while (!left.empty()) {
    ssize_t written = ::write(file.get(), left.data(), left.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) break;
    left.remove_prefix(static_cast<std::size_t>(written));
  }
  if (!left.empty() || ::fsync(file.get()) != 0 || ::rename(draft.c_str(), path.c_str()) != 0) {
    Error error = failed(path, "write");
    ::unlink(draft.c_str());
    return error;
  }
  return sync_folder_of(path);
}

Result<FileDescriptor> lock_file(const std::string& path) {
  FileDescriptor file(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
  if (!file) return failed(path, "open the lock file");
  char text[32];
  if (::flock(file.get(), LOCK_EX | LOCK_NB) != 0) {
    if (errno != EWOULDBLOCK) return failed(path, "lock");
    ssize_t size = ::read(file.get(), text, sizeof text - 1);
    std::string holder(text, size > 0 ? static_cast<std::size_t>(size) : 0);
    while (!holder.empty() && holder.back() == '\n') holder.pop_back();
    return Error{ErrorCode::busy,
                 fmt::format("{}: another Holdfast (process {}) already writes this journal; stop it first, or give this "
                             "one a journal.path of its own",
                             path, holder.empty() ? "unknown" : holder)};
  }
  std::string mine = fmt::format("{}\n", ::getpid());
  // The process id is a courtesy to whoever meets the lock; failing to write it (a full disk) changes nothing.
  if (::ftruncate(file.get(), 0) == 0) [[maybe_unused]] ssize_t written = ::pwrite(file.get(), mine.data(), mine.size(), 0);
  return file;
}

}  // namespace holdfast::journal
