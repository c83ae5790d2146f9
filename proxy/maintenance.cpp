#include "proxy/maintenance.h"

#include <pthread.h>

namespace holdfast::proxy {

Maintenance::~Maintenance() {
  if (thread_.joinable()) thread_.join();
}

Maintenance::Outcome Maintenance::start(Work work) {
  std::lock_guard lock(mutex_);
  if (is_running_) return Error{ErrorCode::busy, "another job is working on the journal at this moment; try again when it is over"};
  if (thread_.joinable()) thread_.join();
  is_running_ = true;
  progress_ = 0;
  ++job_;
  thread_ = std::thread([this, work = std::move(work)] {
    pthread_setname_np(pthread_self(), "maintenance");
    Outcome outcome = work([this](double share) {
      std::lock_guard progressing(mutex_);
      progress_ = share;
    });
    std::lock_guard ending(mutex_);
    outcome_ = std::move(outcome);
    is_running_ = false;
  });
  return nlohmann::ordered_json{{"job", job_}};
}

Maintenance::Outcome Maintenance::state(std::uint64_t job) const {
  std::lock_guard lock(mutex_);
  if (job != job_) return Error{ErrorCode::not_found, "that job is over, and another one has been started since; see the daemon's log"};
  if (is_running_) return nlohmann::ordered_json{{"running", true}, {"progress", progress_}};
  if (!outcome_) return outcome_.error();
  return nlohmann::ordered_json{{"running", false}, {"result", *outcome_}};
}

}  // namespace holdfast::proxy
