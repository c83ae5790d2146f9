#include "proxy/late_library.h"

#include <math.h>

#include <catch2/catch.hpp>

namespace holdfast::proxy {
namespace {

constinit LateLibrary libm("libm.so.6"), missing("libmissing.so.7");
HOLDFAST_LATE(libm, j0);

TEST_CASE("a library's function is called as if it were linked, and the library is loaded for it") { CHECK(j0(0.0) == 1.0); }

TEST_CASE("a library that is not installed is named") {
  CHECK(libm.load());
  Status loaded = missing.load();
  REQUIRE_FALSE(loaded);
  CHECK(loaded.error().code == ErrorCode::unavailable);
  CHECK(loaded.error().message.find("install the package it comes from: libmissing.so.7: cannot open shared object file") != std::string::npos);
}

}  // namespace
}  // namespace holdfast::proxy
