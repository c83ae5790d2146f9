// The server: `holdfast serve`. Puts journal, workers, listeners and the admin socket together, and answers signals.
#pragma once

#include <string>

namespace holdfast::proxy {

/// Runs until SIGTERM or SIGINT. Returns the exit code (sysexits.h).
int serve(const std::string& config_path);

}  // namespace holdfast::proxy
