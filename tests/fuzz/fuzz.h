// What every fuzz target needs: the entry point as a function of text, and a check that stays in every build.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <string_view>

#define REQUIRE_TRUE(condition)     \
  do {                              \
    if (!(condition)) std::abort(); \
  } while (false)

void fuzz(std::string_view input);

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  fuzz({reinterpret_cast<const char*>(data), size});
  return 0;
}
