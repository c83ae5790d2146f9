// The feed: pushes what people get to another mail store by LMTP, for those who would rather keep a second
// one warm.
//
// A consumer of the journal with a durable position (the file feed.json): after a restart it goes on where it
// stood. What was under way when Holdfast stopped goes too, once. What a recipient's store refuses for the
// moment, or breaks off at, is tried again, with longer and longer pauses, and keeps nothing else waiting; what
// it refuses for good is left out, with a line in the log. Runs on a thread of its
// own.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <thread>

#include "journal/journal.h"
#include "proxy/config.h"
#include "proxy/json.h"
#include "proxy/replay.h"

namespace holdfast::proxy {

class Feed : private ReplayJob {
 public:
  /// config.mailbox.feed must be set. Error: the position cannot be read.
  static Result<std::unique_ptr<Feed>> start(journal::Journal& journal, const Config& config);
  /// Finishes the entry that it is at.
  ~Feed() override;

  /// How it stands: where it feeds to, how many entries are to be tried again, and what hinders it. Thread-safe.
  Json state() const;

 private:
  struct Later {
    std::set<std::uint32_t> recipients;
    std::int64_t due_us = 0;
    std::int64_t pause_us = 0;  ///< the last one
  };

  Feed(journal::Journal& journal, const Config& config);
  Status load();
  Status save();
  void run();
  bool is_stopping() const;
  std::unique_ptr<ReplayItem> next() override;
  void done(const ReplayResult& result) override;
  std::unique_ptr<ReplayItem> item(journal::RecordId id, const Later* before);
  void leave_out_copies(const journal::Entry& entry, std::vector<std::uint32_t>& recipients);
  void put_off(journal::RecordId id, std::set<std::uint32_t> recipients, std::int64_t last_pause_us);

  journal::Journal& journal_;
  const Config config_;
  journal::RecordId since_ = 0;     ///< entries up to it were never fed
  journal::RecordId position_ = 0;  ///< entries up to it are done, or in later_
  std::map<journal::RecordId, Later> later_;
  std::map<journal::RecordId, Later> under_way_;
  std::set<std::string> told_;  ///< what hinders reading the journal, once each
  mutable std::mutex mutex_;
  std::condition_variable wake_;
  bool is_stopping_ = false;
  std::string problem_;      ///< of the last attempt to reach the store, for others to see
  std::size_t put_off_ = 0;  ///< entries in later_, likewise
  std::thread thread_;
};

}  // namespace holdfast::proxy
