// What is said where the system gives no more threads. Mail goes on without: what needs one comes later.
#pragma once

#include <fmt/format.h>

#include <system_error>

#include "journal/result.h"

namespace holdfast::proxy {

/// For what std::thread throws.
inline Error thread_shortage(const std::system_error& problem) {
  return {ErrorCode::unavailable, fmt::format("cannot start a thread: {}; raise TasksMax, LimitNPROC or ulimit -u", problem.what())};
}

}  // namespace holdfast::proxy
