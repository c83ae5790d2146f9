// A replay: entries of the journal, as they were, to somewhere else. What is delivered when is never changed
// by it.
//
// A target takes entries; the progress file remembers which it has taken, so that the same command goes on
// after an interruption.
#pragma once

#include <atomic>
#include <memory>
#include <string>
#include <vector>

#include "journal/reader.h"
#include "proxy/config.h"
#include "proxy/delivery.h"
#include "proxy/replay_progress.h"

namespace holdfast::proxy {

struct ReplayOptions {
  std::string to;                          ///< smtp://, smtps://, lmtp://HOST:PORT, maildir:, mbox:, eml:PATH
  std::vector<std::string> to_recipients;  ///< instead of the original ones
  double rate = 0;                         ///< entries a second at most; 0: no limit
  std::uint64_t concurrency = 4;           ///< connections, or files, at once
  bool is_report = false;                  ///< as journal reports
};

/// One entry of a replay: the envelope and content as they are to be sent.
struct ReplayItem {
  journal::Entry entry;                   ///< its recipients are those wanted
  std::vector<std::uint32_t> recipients;  ///< indices of those still to be served
  Payload payload;
};

/// What became of one entry.
struct ReplayResult {
  journal::RecordId id;
  enum class State { sent, refused, failed } state;
  std::string detail;                       ///< the target's words, or the file
  std::vector<std::uint32_t> served;        ///< recipients that have it now
  std::vector<std::uint32_t> refused = {};  ///< for good
  std::uint64_t file_size = 0;              ///< of a target that appends to one file, with this entry
};

/// What a replay asks and tells while it runs. One thread at a time; what next() returned belongs to who asked for it.
class ReplayJob {
 public:
  virtual ~ReplayJob() = default;
  /// The next entry, or null after the last or once it shall stop.
  virtual std::unique_ptr<ReplayItem> next() = 0;
  virtual void done(const ReplayResult& result) = 0;
};

/// Where entries go. run() takes all that the job has; an error means that the target takes no more.
class ReplayTarget {
 public:
  virtual ~ReplayTarget() = default;
  virtual Status run(ReplayJob& job) = 0;
};

/// The target that options.to names. progress: files go on where they stood. Errors: invalid, or the place
/// cannot be used.
Result<std::unique_ptr<ReplayTarget>> open_target(const ReplayOptions& options, const Config& config, ReplayProgress& progress);
/// journal: where no content may lie in the clear. writers: files that are written at once, by so many threads; an mbox has one. Results then
/// come in any order.
Result<std::unique_ptr<ReplayTarget>> open_file_target(const std::string& kind, const std::string& path, const std::string& journal,
                                                       ReplayProgress& progress, std::uint64_t writers = 1);
Result<std::unique_ptr<ReplayTarget>> open_smtp_target(const std::string& scheme, const HostPort& host, const ReplayOptions& options,
                                                       const Config& config);

}  // namespace holdfast::proxy
