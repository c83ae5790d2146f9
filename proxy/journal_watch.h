// JournalWatch: looks now and then at how the journal is, holds mail off when it has its size or its
// files were taken away, puts back a lost key ring, sees whether the master key is still there, and tells when somebody should know.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <string>

#include "journal/journal.h"
#include "proxy/journal_room.h"
#include "proxy/loop.h"

namespace holdfast::proxy {

/// Not thread-safe.
class JournalWatch {
 public:
  /// @param alert  takes what somebody should know now, in words
  JournalWatch(journal::Journal& journal, std::function<void(const std::string& what)> alert) : journal_(journal), alert_(std::move(alert)) {}

  /// Looks once a second, however often it is called: mail that comes between two looks is taken beyond a limit.
  void look(const JournalConfig& config);

  const JournalRoom& room() const { return room_; }
  /// What a commit to the disk takes, where that was very long within the last minute; else 0.
  Duration slow_commit() const { return slow_commit_; }
  /// Why the journal could not be opened after a restart: its key ring or the master key is not at its place. Empty when all is well.
  const std::string& keys_problem() const { return key_ring_problem_.empty() ? key_file_problem_ : key_ring_problem_; }

 private:
  void watch_state(const journal::WriterState& writer);
  void watch_speed(const journal::WriterState& writer);
  void watch_room(const JournalConfig& config);
  void watch_refusal(const JournalConfig& config);
  void watch_key_ring();
  void watch_key_file(const JournalConfig& config);
  void take_key_look(const Status& found);

  journal::Journal& journal_;
  std::function<void(const std::string&)> alert_;
  Deadline next_look_ = Clock::now();
  bool is_writable_ = true;
  std::string refuses_why_, key_ring_problem_, key_file_problem_;
  Deadline next_key_look_ = Clock::now();
  /// A look at the key file, on a thread of its own: it may be on another machine's disk, which does not answer.
  struct KeyLook {
    std::atomic<bool> is_done{false};
    Status found;
  };
  std::shared_ptr<KeyLook> key_look_;  ///< that is under way
  JournalRoom room_;
  std::uint64_t seen_commits_ = 0;
  std::chrono::nanoseconds seen_commit_time_{0};
  Duration slow_commit_{0};
  Deadline slow_until_{};
};

}  // namespace holdfast::proxy
