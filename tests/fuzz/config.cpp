// A configuration file: refused with a message or taken, never worse.
#include "proxy/config.h"

#include "tests/fuzz/fuzz.h"

using namespace holdfast::proxy;

void fuzz(std::string_view input) {
  auto config = parse_config(std::string(input), "fuzz.yaml");
  if (config)
    REQUIRE_TRUE(!config->listeners.empty() && !config->routes.empty());
  else
    REQUIRE_TRUE(!config.error().message.empty());
}
