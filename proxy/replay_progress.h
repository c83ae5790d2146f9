// How far a replay has come: which recipients of which entries the target has taken. A file, a line an entry,
// written as it happens.
#pragma once

#include <map>
#include <set>
#include <string>
#include <vector>

#include "journal/files.h"
#include "journal/record.h"
#include "journal/result.h"

namespace holdfast::proxy {

class ReplayProgress {
 public:
  ReplayProgress() = default;
  /// Reads what an earlier run left, and goes on there. Errors: permission, io, no_space (the caller may name another file); busy, when
  /// another replay is writing it; invalid, when it is something else, which stays as it is.
  ///
  /// @param target  what is replayed to, as one word
  static Result<ReplayProgress> open(const std::string& path, const std::string& target);

  bool has(journal::RecordId id, std::uint32_t recipient) const;
  std::size_t entries() const { return done_.size(); }
  /// Whether an earlier run began; and then, how long its file was after the last entry (for targets that
  /// append to one).
  bool is_resumed() const { return is_resumed_; }
  std::uint64_t file_size() const { return file_size_; }

  /// Notes what was served; file_size is for targets that append to one file.
  Status note(journal::RecordId id, const std::vector<std::uint32_t>& recipients, std::uint64_t file_size = 0);
  /// All is done: the file goes.
  void finish();

 private:
  void read(const std::string& lines);

  std::string path_;
  FileDescriptor file_;
  std::map<journal::RecordId, std::set<std::uint32_t>> done_;
  std::uint64_t file_size_ = 0;
  bool is_resumed_ = false;
};

}  // namespace holdfast::proxy
