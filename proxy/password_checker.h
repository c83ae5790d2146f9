// Checks passwords on a thread of its own, one at a time: each takes a tenth of a second and 64 MiB, on
// purpose.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <string>
#include <thread>

#include "proxy/loop.h"

namespace holdfast::proxy {

class PasswordChecker {
 public:
  PasswordChecker();
  ~PasswordChecker();

  /// Calls done on the loop's thread, later. False when too many wait already: nothing is called then.
  /// Thread-safe.
  bool check(std::string hash, std::string password, Loop& loop, std::function<void(bool is_right)> done);

 private:
  struct Job {
    std::string hash, password;
    Loop* loop;
    std::function<void(bool)> done;
  };
  void run();

  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<Job> jobs_;
  bool is_stopping_ = false;
  std::thread thread_;
};

}  // namespace holdfast::proxy
