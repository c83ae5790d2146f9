#include "proxy/late_library.h"

#include <dlfcn.h>
#include <fmt/format.h>
#include <sysexits.h>

#include <cstdio>
#include <cstdlib>
#include <string>

namespace holdfast::proxy {
namespace {

[[noreturn]] void end_without(const std::string& missing) {
  std::fflush(nullptr);  // what was printed until now
  fmt::print(stderr, "holdfast: {}\n", missing);
  std::_Exit(EX_UNAVAILABLE);
}

}  // namespace

Status LateLibrary::load() {
  if (handle_.load(std::memory_order_acquire)) return {};
  void* handle = ::dlopen(name_, RTLD_NOW | RTLD_LOCAL);
  if (!handle) return Error{ErrorCode::unavailable, fmt::format("a library cannot be loaded; install the package it comes from: {}", ::dlerror())};
  handle_.store(handle, std::memory_order_release);
  return {};
}

void* LateLibrary::find(const char* function) {
  if (Status loaded = load(); !loaded) end_without(loaded.error().message);
  void* found = ::dlsym(handle_.load(std::memory_order_acquire), function);
  if (!found) end_without(::dlerror());
  return found;
}

}  // namespace holdfast::proxy
