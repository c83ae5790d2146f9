// Libraries that are loaded when they are first needed.
//
// Each start of a program takes time for every library that it is linked with, and for those that these need in turn. GMime, libcurl and
// libldap are 37 libraries with what they need, and took more than half of the time of a short command; most commands need none of them.
#pragma once

#include <atomic>

#include "journal/result.h"

namespace holdfast::proxy {

/// A shared library. It stays loaded. Thread-safe.
class LateLibrary {
 public:
  /// By the name that the linker would have noted, such as "libldap-2.5.so.0".
  explicit constexpr LateLibrary(const char* name) : name_(name) {}

  /// Loads it, if that has not been done. Errors: unavailable, where it is not installed or does not fit.
  Status load();

  /// The address of a function of the library, or of one that it needs. Loads it; where that or the function is missing, the process ends
  /// with a message, as it does when a library that it is linked with is missing: who can go on without calls load() first.
  void* find(const char* function);

 private:
  const char* name_;
  std::atomic<void*> handle_ = nullptr;
};

/// A function of such a library, called as if it were linked.
template <class Function>
class LateFunction {
 public:
  constexpr LateFunction(LateLibrary& library, const char* name) : library_(library), name_(name) {}

  operator Function*() const {
    Function* function = function_.load(std::memory_order_acquire);
    if (!function) {
      function = reinterpret_cast<Function*>(library_.find(name_));
      function_.store(function, std::memory_order_release);
    }
    return function;
  }

 private:
  LateLibrary& library_;
  const char* name_;
  mutable std::atomic<Function*> function_ = nullptr;
};

/// Has a std::unique_ptr freed by such a function.
template <auto& function>
struct FreedBy {
  template <class T>
  void operator()(T* owned) const {
    function(owned);
  }
};

/// Declares such a function under its own name, which it takes from the header that declares it.
#define HOLDFAST_LATE(library, function) \
  inline constinit const LateFunction<decltype(::function)> function { library, #function }

}  // namespace holdfast::proxy
