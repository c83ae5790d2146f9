#include "proxy/replay_progress.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <sys/file.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <iterator>
#include <sstream>
#include <string_view>

namespace holdfast::proxy {

namespace {

/// The file's first line says that it is one, and of a replay to what: what one target has taken is no news of another.
constexpr std::string_view heading_begin = "holdfast-replay-progress ";

Error cannot_keep(const std::string& path) {
  return {errno == ENOSPC ? ErrorCode::no_space : ErrorCode::io, fmt::format("{}: the progress cannot be kept: {}", path, std::strerror(errno))};
}

}  // namespace

Result<ReplayProgress> ReplayProgress::open(const std::string& path, const std::string& target) {
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
  const std::string text(std::istreambuf_iterator<char>(file), {}), heading = fmt::format("{}{}\n", heading_begin, target);
  const bool is_begun = text.starts_with(heading);
  const bool is_new = !is_begun && heading.starts_with(text);  // cut off by a crash, if it is not empty
  if (!is_begun && !is_new)
    return Error{ErrorCode::invalid,
                 fmt::format("{}: is {}; name another file with --progress", path,
                             text.starts_with(heading_begin) ? "the progress of a replay to another target" : "no progress of a replay")};
  const std::uint64_t whole = is_begun ? text.rfind('\n') + 1 : 0;  // what is behind was cut off by a crash
  if (::ftruncate(progress.file_.get(), static_cast<off_t>(whole)) != 0)
    return Error{ErrorCode::io, fmt::format("{}: {}", path, std::strerror(errno))};
  if (is_new && !journal::write_all(progress.file_.get(), heading)) return cannot_keep(path);
  if (is_begun) progress.read(text.substr(heading.size(), whole - heading.size()));
  return progress;
}

/// Whole lines.
void ReplayProgress::read(const std::string& lines) {
  std::istringstream all(lines);
  for (std::string line; std::getline(all, line);) {
    std::istringstream words(line);
    journal::RecordId id = 0;
    std::uint64_t size = 0;
    if (!(words >> id >> size)) continue;
    file_size_ = size;
    is_resumed_ = true;
    std::set<std::uint32_t>& served = done_[id];
    for (std::uint32_t one; words >> one;) served.insert(one);
  }
}

bool ReplayProgress::has(journal::RecordId id, std::uint32_t recipient) const {
  auto found = done_.find(id);
  return found != done_.end() && found->second.count(recipient) > 0;
}

Status ReplayProgress::note(journal::RecordId id, const std::vector<std::uint32_t>& recipients, std::uint64_t file_size) {
  if (!file_) return {};
  std::string line = fmt::format("{} {} {}\n", id, file_size, fmt::join(recipients, " "));
  if (journal::write_all(file_.get(), line)) return {};
  return cannot_keep(path_);
}

void ReplayProgress::finish() {
  if (file_) ::unlink(path_.c_str());
  file_.reset();
}

}  // namespace holdfast::proxy
