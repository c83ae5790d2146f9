#include "proxy/replay_progress.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <sys/file.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <sstream>

namespace holdfast::proxy {

Result<ReplayProgress> ReplayProgress::open(const std::string& path) {
  ReplayProgress progress;
  progress.path_ = path;
  journal::AsOwner owner(path);
  progress.file_ = FileDescriptor(::open(path.c_str(), O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0600));
  if (!progress.file_)
    return Error{ErrorCode::permission,
                 fmt::format("{}: the progress cannot be kept there: {}; name another file with --progress", path, std::strerror(errno))};
  if (::flock(progress.file_.get(), LOCK_EX | LOCK_NB) != 0)
    return Error{ErrorCode::busy, fmt::format("{}: the same replay is running already", path)};
  std::ifstream file(path);
  std::string line;
  std::uint64_t whole = 0;
  while (std::getline(file, line) && !file.eof()) {  // a last line without its end was cut off by a crash
    whole += line.size() + 1;
    std::istringstream words(line);
    journal::RecordId id = 0;
    std::uint64_t size = 0;
    if (!(words >> id >> size)) continue;
    progress.file_size_ = size;
    progress.is_resumed_ = true;
    std::set<std::uint32_t>& served = progress.done_[id];
    for (std::uint32_t one; words >> one;) served.insert(one);
  }
  if (::ftruncate(progress.file_.get(), static_cast<off_t>(whole)) != 0)
    return Error{ErrorCode::io, fmt::format("{}: {}", path, std::strerror(errno))};
  return progress;
}

bool ReplayProgress::has(journal::RecordId id, std::uint32_t recipient) const {
  auto found = done_.find(id);
  return found != done_.end() && found->second.count(recipient) > 0;
}

Status ReplayProgress::note(journal::RecordId id, const std::vector<std::uint32_t>& recipients, std::uint64_t file_size) {
  if (!file_) return {};
  std::string line = fmt::format("{} {} {}\n", id, file_size, fmt::join(recipients, " "));
  if (journal::write_all(file_.get(), line)) return {};
  return Error{errno == ENOSPC ? ErrorCode::no_space : ErrorCode::io,
               fmt::format("{}: the progress cannot be kept: {}", path_, std::strerror(errno))};
}

void ReplayProgress::finish() {
  if (file_) ::unlink(path_.c_str());
  file_.reset();
}

}  // namespace holdfast::proxy
