#include "proxy/maintenance.h"

#include <pthread.h>

#include "proxy/thread_shortage.h"

namespace holdfast::proxy {
namespace {

/// Whoever asked for a job looks a few times a second.
constexpr std::size_t kept_outcomes = 16;

}  // namespace

void Maintenance::wait() {
  if (thread_.joinable()) thread_.join();
}

Maintenance::Outcome Maintenance::start(Work work) {
  std::lock_guard lock(mutex_);
  if (is_running_) return Error{ErrorCode::busy, "another job is working on the journal at this moment; try again when it is over"};
  if (thread_.joinable()) thread_.join();
  auto run = [this, work = std::move(work)] {
    pthread_setname_np(pthread_self(), "maintenance");
    Outcome outcome = work([this](double share) {
      std::lock_guard progressing(mutex_);
      progress_ = share;
    });
    std::lock_guard ending(mutex_);
    outcomes_.emplace(job_, std::move(outcome));
    if (outcomes_.size() > kept_outcomes) outcomes_.erase(outcomes_.begin());
    is_running_ = false;
  };
  try {
    thread_ = std::thread(std::move(run));  // which waits for the lock
  } catch (const std::system_error& problem) {
    return thread_shortage(problem);
  }
  is_running_ = true;
  progress_ = 0;
  return Json{{"job", ++job_}};
}

Maintenance::Outcome Maintenance::state(std::uint64_t job) const {
  std::lock_guard lock(mutex_);
  if (is_running_ && job == job_) return Json{{"running", true}, {"progress", progress_}};
  auto found = outcomes_.find(job);
  if (found == outcomes_.end()) return Error{ErrorCode::not_found, "that job ended long ago; see the daemon's log"};
  if (!found->second) return found->second.error();
  return Json{{"running", false}, {"result", *found->second}};
}

}  // namespace holdfast::proxy
