#include "journal/master_key.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <memory>

#include "journal/files.h"

namespace holdfast::journal {
namespace {

/// More than any form of a key has.
constexpr std::size_t most_bytes = 128;

Error no_key(const std::string& name) {
  return {ErrorCode::corrupt, fmt::format("{}: this is no key; it must be 64 hexadecimal digits, 44 characters of base64, or 32 bytes", name)};
}

Result<std::string> read_file(const std::string& path) {
  FileDescriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!file) {
    if (errno == ENOENT) return Error{ErrorCode::not_found, fmt::format("{}: the key file does not exist", path)};
    return Error{ErrorCode::permission, fmt::format("{}: cannot read the key file: {}; run as the user that owns it", path, std::strerror(errno))};
  }
  struct stat status;
  if (::fstat(file.get(), &status) == 0 && (status.st_mode & (S_IRWXG | S_IRWXO)) != 0)
    return Error{ErrorCode::permission,
                 fmt::format("{}: other users may read the key file (mode {:04o}); run: chmod 600 {}", path, status.st_mode & 07777U, path)};
  // It may be a pipe.
  char text[most_bytes];
  std::size_t size = 0;
  while (size < sizeof text) {
    ssize_t got = ::read(file.get(), text + size, sizeof text - size);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return Error{ErrorCode::io, fmt::format("{}: {}", path, std::strerror(errno))};
    if (got == 0) break;
    size += static_cast<std::size_t>(got);
  }
  return std::string(text, size);
}

Result<std::string> run_command(const std::string& command) {
  std::FILE* pipe = ::popen(command.c_str(), "re");
  if (!pipe) return Error{ErrorCode::unavailable, fmt::format("journal.key_command: cannot be run: {}", std::strerror(errno))};
  char text[most_bytes];
  std::size_t size = std::fread(text, 1, sizeof text, pipe);
  int status = ::pclose(pipe);
  if (status != 0)
    return Error{ErrorCode::unavailable,
                 fmt::format("journal.key_command: it ended with {} {}; run it by hand as the same user: {}",
                             WIFSIGNALED(status) ? "signal" : "exit code", WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status), command)};
  return std::string(text, size);
}

}  // namespace

std::optional<Key> parse_master_key(std::string text) {
  constexpr std::size_t hex_size = 64, base64_size = 44;
  Key key;
  if (text.size() != key.size())
    while (!text.empty() && (text.back() == '\n' || text.back() == '\r')) text.pop_back();
  std::optional<std::string> bytes;
  if (text.size() == key.size()) bytes = text;
  if (text.size() == hex_size) bytes = from_hex(text);
  if (text.size() == base64_size && text.back() == '=') {
    unsigned char decoded[base64_size];
    int size = EVP_DecodeBlock(decoded, reinterpret_cast<const unsigned char*>(text.data()), static_cast<int>(text.size()));
    // The padding counts as a byte.
    if (size == static_cast<int>(key.size()) + 1) bytes.emplace(reinterpret_cast<char*>(decoded), key.size());
  }
  if (!bytes) return std::nullopt;
  std::memcpy(key.data(), bytes->data(), key.size());
  return key;
}

Result<Key> read_master_key(const MasterKeySource& source) {
  Result<std::string> text = source.command.empty() ? read_file(source.file) : run_command(source.command);
  if (!text) return text.error();
  std::optional<Key> key = parse_master_key(std::move(*text));
  if (!key) return no_key(source.name());
  return *key;
}

Result<Key> create_key_file(const std::string& path) {
  Key key = random_key();
  std::string draft = path + ".draft";
  if (Status written = write_file(draft, to_hex(view(key)) + "\n"); !written) return written.error();
  if (::renameat2(AT_FDCWD, draft.c_str(), AT_FDCWD, path.c_str(), RENAME_NOREPLACE) != 0) {
    int reason = errno;
    ::unlink(draft.c_str());
    return Error{ErrorCode::permission, fmt::format("{}: cannot make the key file: {}", path, std::strerror(reason))};
  }
  if (Status synced = sync_folder_of(path); !synced) return synced.error();
  return key;
}

}  // namespace holdfast::journal
