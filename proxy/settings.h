// Settings: the configuration with all that was made from it. Immutable; a reload puts a new one in its place, and sessions
// keep the one they began with.
#pragma once

#include <memory>

#include "proxy/config.h"
#include "proxy/tls.h"

namespace holdfast::proxy {

struct Settings {
  Config config;
  std::unique_ptr<const Tls> tls;
};

}  // namespace holdfast::proxy
