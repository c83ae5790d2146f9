#include "proxy/progress_bar.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>

namespace holdfast::proxy {

ProgressBar::ProgressBar(std::string what) : what_(std::move(what)), is_shown_(::isatty(STDERR_FILENO)) {}

ProgressBar::~ProgressBar() {
  if (is_shown_) fmt::print(stderr, "\r\x1b[K");
}

void ProgressBar::show(double share, const std::string& more) {
  auto now = std::chrono::steady_clock::now();
  if (!is_shown_ || now - last_ < std::chrono::milliseconds(100)) return;
  last_ = now;
  constexpr int width = 40;
  share = std::clamp(share, 0.0, 1.0);
  int full = static_cast<int>(share * width);
  double elapsed = std::chrono::duration<double>(now - begun_).count();
  std::string left = share > 0.01 ? fmt::format("{:.0f} s left", elapsed / share - elapsed) : "";
  fmt::print(stderr, "\r\x1b[K{} [{}{}] {:3.0f}% {} {}", what_, std::string(static_cast<std::size_t>(full), '#'),
             std::string(static_cast<std::size_t>(width - full), ' '), share * 100, left, more);
  std::fflush(stderr);
}

}  // namespace holdfast::proxy
