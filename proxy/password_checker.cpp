#include "proxy/password_checker.h"

#include <pthread.h>

#include "failover/accounts.h"

namespace holdfast::proxy {
namespace {

constexpr std::size_t most_checks_waiting = 100;

}  // namespace

PasswordChecker::PasswordChecker() : thread_([this] { run(); }) {}

PasswordChecker::~PasswordChecker() {
  {
    std::lock_guard lock(mutex_);
    is_stopping_ = true;
  }
  wake_.notify_one();
  thread_.join();
}

bool PasswordChecker::check(std::string hash, std::string password, Loop& loop, std::function<void(bool)> done) {
  std::lock_guard lock(mutex_);
  if (jobs_.size() >= most_checks_waiting) return false;
  jobs_.push_back({std::move(hash), std::move(password), &loop, std::move(done)});
  wake_.notify_one();
  return true;
}

void PasswordChecker::run() {
  pthread_setname_np(pthread_self(), "passwords");
  std::unique_lock lock(mutex_);
  for (;;) {
    wake_.wait(lock, [this] { return is_stopping_ || !jobs_.empty(); });
    if (is_stopping_) return;
    Job job = std::move(jobs_.front());
    jobs_.pop_front();
    lock.unlock();
    bool is_right = failover::is_password(job.hash, job.password);
    job.loop->post([done = std::move(job.done), is_right] { done(is_right); });
    lock.lock();
  }
}

}  // namespace holdfast::proxy
