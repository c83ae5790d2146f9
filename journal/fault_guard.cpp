#include "journal/fault_guard.h"

#include <csignal>
#include <cstdint>
#include <mutex>

namespace holdfast::journal {
namespace {

constexpr std::size_t page_size = 4096;
/// No record or frame comes near this.
constexpr std::size_t largest_value = 64 * 1024 * 1024;

/// What was done about the signals before: nothing, or a sanitizer's report.
struct sigaction bus_before, segv_before;  // NOLINT: the signal handler's only way to find them

void on_fault(int signal) {
  if (fault_return) siglongjmp(*fault_return, 1);
  // Not ours: it happens again on return, as it would have without us.
  sigaction(signal, signal == SIGBUS ? &bus_before : &segv_before, nullptr);
}

void on_assertion(MDB_env*, const char*) {
  if (fault_return) siglongjmp(*fault_return, 1);
}

void handle_faults() {
  struct sigaction action {};
  action.sa_handler = on_fault;
  action.sa_flags = SA_NODEFER;  // the handler may be left by a jump
  sigemptyset(&action.sa_mask);
  sigaction(SIGBUS, &action, &bus_before);
  sigaction(SIGSEGV, &action, &segv_before);
}

}  // namespace

thread_local sigjmp_buf* fault_return = nullptr;  // NOLINT

void return_faults_of(MDB_env* environment) {
  static std::once_flag once;
  std::call_once(once, handle_faults);
  mdb_env_set_assert(environment, on_assertion);
}

int touch(const MDB_val& value) {
  if (value.mv_size > largest_value) return MDB_CORRUPTED;
  const auto* bytes = static_cast<const volatile std::uint8_t*>(value.mv_data);
  for (std::size_t at = 0; at < value.mv_size; at += page_size) (void)bytes[at];
  if (value.mv_size > 0) (void)bytes[value.mv_size - 1];
  return 0;
}

}  // namespace holdfast::journal
