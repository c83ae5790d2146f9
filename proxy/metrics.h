// Metrics: the state of things as Prometheus and what speaks its language collect it.
#pragma once

#include <string>

#include "proxy/json.h"

namespace holdfast::proxy {

/// What a collector takes that text for.
inline constexpr const char* metrics_type = "text/plain; version=0.0.4; charset=utf-8";

/// The state, as `holdfast status --json` has it, in Prometheus' text format 0.0.4. No personal data is in it.
std::string metrics_of(const Json& status);

}  // namespace holdfast::proxy
