// Alerter: runs the operator's command when something happened that somebody should know now, as to page who is on call.
//
// What happened is in the command's environment, never part of the command. One alert after the other, on a thread of its own; a command
// that takes too long is ended. Failures go to the log.
#pragma once

#include <condition_variable>
#include <deque>
#include <map>
#include <mutex>
#include <string>
#include <thread>

#include "journal/files.h"

namespace holdfast::proxy {

class Alerter {
 public:
  /// By name, as in the environment: "HOLDFAST_ALERT" and others.
  using Facts = std::map<std::string, std::string>;

  Alerter();
  /// Alerts that wait are not given any more, and what runs is left alone.
  ~Alerter();

  /// What /bin/sh runs from now on; nothing when empty. Thread-safe.
  void set_command(std::string command);
  /// Thread-safe, does not wait. When very many wait, this one is left out, with a word in the log.
  void tell(Facts facts);

 private:
  void run();
  /// Empty, or what went wrong.
  std::string alert(const std::string& command, const Facts& facts);

  std::mutex mutex_;
  std::condition_variable wake_;
  std::string command_;
  std::deque<Facts> waiting_;
  bool is_stopping_ = false;
  FileDescriptor stop_;  ///< becomes readable when it is to stop
  std::thread thread_;
};

}  // namespace holdfast::proxy
