// The clock of all that waits: it goes only while this process can run.
//
// A machine is stopped for seconds when it is moved to another host or a snapshot is made of it. Afterwards a primary would seem to have
// been silent for as long, with its answer unread in the socket, and would be given up. So the time in which nobody could listen is not counted.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <thread>

namespace holdfast::proxy {

/// The steady clock, less what the process was stopped for while a ClockKeeper lived. Thread-safe.
struct Clock {
  using time_point = std::chrono::steady_clock::time_point;
  using duration = time_point::duration;

  static time_point now();
};

/// While it lives, its thread notices when the process has been stopped, for longer than longest_step. One a process.
class ClockKeeper {
 public:
  static constexpr std::chrono::milliseconds tick{50}, longest_step{200};

  ClockKeeper();
  ~ClockKeeper();
  ClockKeeper(const ClockKeeper&) = delete;
  ClockKeeper& operator=(const ClockKeeper&) = delete;

 private:
  void run();

  std::mutex mutex_;
  std::condition_variable wake_;
  bool is_stopping_ = false;
  std::thread thread_;
};

}  // namespace holdfast::proxy
