// Long work on the journal, one job at a time, on a thread of its own, while the admin socket goes on
// answering.
#pragma once

#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <thread>

#include "journal/result.h"
#include "proxy/json.h"

namespace holdfast::proxy {

class Maintenance {
 public:
  using OnProgress = std::function<void(double share)>;
  using Outcome = Result<Json>;
  using Work = std::function<Outcome(const OnProgress&)>;

  Maintenance() = default;
  ~Maintenance() { wait(); }

  /// Until the job that is running has ended.
  void wait();

  /// {"job": number}. Error: busy while another one runs.
  Outcome start(Work work);
  /// {"running", "progress", "result"}, or the job's own error. Error: not_found when it ended long ago.
  Outcome state(std::uint64_t job) const;

 private:
  mutable std::mutex mutex_;
  std::uint64_t job_ = 0;
  bool is_running_ = false;
  double progress_ = 0;
  std::map<std::uint64_t, Outcome> outcomes_;  ///< of the last jobs that ended
  std::thread thread_;
};

}  // namespace holdfast::proxy
