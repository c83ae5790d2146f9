#include "journal/key_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "journal/files.h"

namespace holdfast::journal {

Result<Key> read_key_file(const std::string& path) {
  FileDescriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!file) {
    if (errno == ENOENT) return Error{ErrorCode::not_found, fmt::format("{}: the key file does not exist", path)};
    return Error{ErrorCode::permission, fmt::format("{}: cannot read the key file: {}; run as the user that owns it",
                                                    path, std::strerror(errno))};
  }
  struct stat status;
  if (::fstat(file.get(), &status) == 0 && (status.st_mode & (S_IRWXG | S_IRWXO)) != 0)
    return Error{ErrorCode::permission,
                 fmt::format("{}: other users may read the key file (mode {:04o}); run: chmod 600 {}", path,
                             status.st_mode & 07777U, path)};
  char text[66];
  ssize_t size = ::read(file.get(), text, sizeof text);
  if (size < 64 || size > 65 || (size == 65 && text[64] != '\n'))
    return Error{ErrorCode::corrupt,
                 fmt::format("{}: not a key file; it must hold 64 hexadecimal digits. Restore it from your backup", path)};
  std::optional<std::string> bytes = from_hex({text, 64});
  if (!bytes)
    return Error{ErrorCode::corrupt,
                 fmt::format("{}: not a key file; it must hold 64 hexadecimal digits. Restore it from your backup", path)};
  Key key;
  std::memcpy(key.data(), bytes->data(), key.size());
  return key;
}

Result<Key> create_key_file(const std::string& path) {
  Key key = random_key();
  std::string text = to_hex(view(key)) + "\n";
  FileDescriptor file(::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
  if (!file) return Error{errno == ENOSPC ? ErrorCode::no_space : ErrorCode::permission,
                          fmt::format("{}: cannot make the key file: {}", path, std::strerror(errno))};
  if (::write(file.get(), text.data(), text.size()) != static_cast<ssize_t>(text.size()) || ::fsync(file.get()) != 0) {
    int reason = errno;
    ::unlink(path.c_str());
    return Error{reason == ENOSPC ? ErrorCode::no_space : ErrorCode::io,
                 fmt::format("{}: cannot write the key file: {}", path, std::strerror(reason))};
  }
  if (Status synced = sync_folder_of(path); !synced) return synced.error();
  return key;
}

}  // namespace holdfast::journal
