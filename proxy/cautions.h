// What of a configuration can be run with, and yet will hardly do what is meant.
#pragma once

#include <string>
#include <vector>

#include "proxy/config.h"

namespace holdfast::proxy {

struct Caution {
  std::string key;  ///< of the configuration
  std::string value;
  std::string problem;  ///< for a person, with what to do
};

/// Looks at the machine too: reads the files that hold passwords, and asks what kind of disk the journal is on.
std::vector<Caution> cautions_about(const Config& config);

}  // namespace holdfast::proxy
