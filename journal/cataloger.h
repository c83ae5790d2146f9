// The cataloger: the thread that keeps the catalog up to date, a second or so behind the log.
#pragma once

#include <condition_variable>
#include <functional>
#include <future>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "journal/catalog.h"

namespace holdfast::journal {

/// Keeps a catalog up to date on a thread of its own, in batches.
class Cataloger {
 public:
  using OnError = std::function<void(const std::string&)>;
  Cataloger(std::unique_ptr<Catalog> catalog, OnError on_error);
  /// Applies what is left.
  ~Cataloger();

  /// Takes over records that were committed. Thread-safe, does not wait.
  void add(std::vector<Committed>& records);
  /// Applies what is there soon, not only after the usual delay. Thread-safe, does not wait.
  void hurry();
  /// Does something else with the catalog, between two batches, and waits for it. Thread-safe.
  Status run(std::function<Status(Catalog&)> task);

 private:
  void run();

  std::unique_ptr<Catalog> catalog_;
  OnError on_error_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::vector<Committed> queue_;
  std::vector<std::packaged_task<Status(Catalog&)>> tasks_;
  bool is_stopping_ = false, is_hurried_ = false;
  std::thread thread_;
};

}  // namespace holdfast::journal
