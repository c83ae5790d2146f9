// Retention: what is older than journal.retention goes by itself, as far as nothing forbids it; and what does is told, since mail that
// should have gone and is still there is somebody's business.
#pragma once

#include <mutex>
#include <string>

#include "failover/clock_watch.h"
#include "journal/journal.h"
#include "proxy/log.h"
#include "proxy/loop.h"
#include "proxy/maintenance.h"

namespace holdfast::proxy {

class Retention {
 public:
  explicit Retention(journal::Journal& journal) : journal_(journal) {}

  /// To be called often. Begins to prune every ten minutes, or as often as the retention is long, when nothing else is at work.
  ///
  /// @param retention  0: nothing is ever too old
  /// @param maintenance  must have ended before this is destroyed
  void look(Duration retention, Maintenance& maintenance);

  /// {"segments", "emptied", "stays"}: takes away what ended before the time, with a line in the log for each segment (see Journal::prune).
  /// Blocks; for a job of maintenance.
  ///
  /// @param before_us  microseconds since 1970
  Maintenance::Outcome prune(std::int64_t before_us, const std::string& by, const std::string& reason);

  /// Why something that is older than the retention is still there, as of the last look; else empty. Thread-safe.
  std::string overdue() const;

 private:
  void note(LogLevel level, const std::string& why);

  journal::Journal& journal_;
  failover::ClockWatch clock_;
  Deadline next_ = Clock::now();
  mutable std::mutex mutex_;
  std::string overdue_;
};

}  // namespace holdfast::proxy
