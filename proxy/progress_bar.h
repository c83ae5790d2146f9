// A bar on a terminal, nothing elsewhere.
#pragma once

#include <chrono>
#include <string>

namespace holdfast::proxy {

class ProgressBar {
 public:
  /// what is done, such as "verifying".
  explicit ProgressBar(std::string what);
  ~ProgressBar();
  ProgressBar(const ProgressBar&) = delete;
  ProgressBar& operator=(const ProgressBar&) = delete;
  /// share from 0 to 1; more is said behind it. Cheap to call often.
  void show(double share, const std::string& more = {});

 private:
  std::string what_;
  bool is_shown_;
  std::chrono::steady_clock::time_point begun_ = std::chrono::steady_clock::now(), last_{};
};

}  // namespace holdfast::proxy
