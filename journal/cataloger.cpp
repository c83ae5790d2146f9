#include "journal/cataloger.h"

#include <pthread.h>

#include <chrono>

namespace holdfast::journal {
namespace {

constexpr auto delay = std::chrono::seconds(1);
constexpr std::size_t early_batch = 20000;

}  // namespace

Cataloger::Cataloger(std::unique_ptr<Catalog> catalog, OnError on_error)
    : catalog_(std::move(catalog)), on_error_(std::move(on_error)), thread_([this] { run(); }) {}

Cataloger::~Cataloger() {
  {
    std::lock_guard lock(mutex_);
    is_stopping_ = true;
  }
  wake_.notify_one();
  thread_.join();
}

void Cataloger::add(std::vector<Committed>& records) {
  bool is_early;
  {
    std::lock_guard lock(mutex_);
    queue_.insert(queue_.end(), std::make_move_iterator(records.begin()), std::make_move_iterator(records.end()));
    is_early = queue_.size() >= early_batch;
  }
  if (is_early) wake_.notify_one();
}

void Cataloger::hurry() {
  {
    std::lock_guard lock(mutex_);
    is_hurried_ = true;
  }
  wake_.notify_one();
}

Status Cataloger::run(std::function<Status(Catalog&)> task) {
  std::packaged_task<Status(Catalog&)> packaged(std::move(task));
  std::future<Status> done = packaged.get_future();
  {
    std::lock_guard lock(mutex_);
    tasks_.push_back(std::move(packaged));
  }
  wake_.notify_one();
  return done.get();
}

void Cataloger::run() {
  pthread_setname_np(pthread_self(), "cataloger");
  std::vector<Committed> batch;
  std::vector<std::packaged_task<Status(Catalog&)>> tasks;
  bool has_gap = false;
  for (bool is_stopping = false; !is_stopping;) {
    {
      std::unique_lock lock(mutex_);
      wake_.wait_for(lock, delay, [this] { return is_stopping_ || is_hurried_ || !tasks_.empty() || queue_.size() >= early_batch; });
      is_hurried_ = false;
      is_stopping = is_stopping_;
      tasks.swap(tasks_);
      batch.insert(batch.end(), std::make_move_iterator(queue_.begin()), std::make_move_iterator(queue_.end()));
      queue_.clear();
    }
    for (auto& task : tasks) task(*catalog_);
    tasks.clear();
    if (batch.empty()) continue;
    if (has_gap) {
      batch.clear();
      continue;
    }
    Status applied = catalog_->apply(batch);
    if (!applied) on_error_("the catalog falls behind: " + applied.error().message);
    // A full disk passes; but memory is bounded. What is dropped here is in the log: the next start finds it there.
    has_gap = !applied && batch.size() > 10 * early_batch;
    if (applied || has_gap) batch.clear();
  }
}

}  // namespace holdfast::journal
