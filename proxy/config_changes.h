// What a reload of the configuration changes, in words. Sans I/O.
#pragma once

#include <string>
#include <vector>

#include "proxy/config.h"

namespace holdfast::proxy {

/// What a reload would change, one sentence each; for the log. Keys that need a restart are said to.
std::vector<std::string> changes(const Config& before, const Config& after);

}  // namespace holdfast::proxy
