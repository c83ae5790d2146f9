#include "journal/rehearsal.h"

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>

namespace holdfast::journal {

bool comes_through(const std::function<void()>& action) {
  pid_t child = ::fork();
  if (child < 0) return true;
  if (child == 0) {
    const rlimit no_core{};
    ::setrlimit(RLIMIT_CORE, &no_core);
    int nowhere = ::open("/dev/null", O_WRONLY | O_CLOEXEC);  // the C library's last words would only alarm
    if (nowhere >= 0) ::dup2(nowhere, STDERR_FILENO);
    action();
    ::_exit(0);
  }
  int status = 0;
  while (::waitpid(child, &status, 0) < 0)
    if (errno != EINTR) return true;
  return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

}  // namespace holdfast::journal
