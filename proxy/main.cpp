// The command line: `holdfast COMMAND`. Each group of commands has a file of its own; see cli.h.
#include <fcntl.h>
#include <sysexits.h>
#include <unistd.h>

#include <csignal>
#include <utility>

#include "proxy/cli.h"

namespace {

/// Standard input, output and error that were closed by whoever starts this would become the first files that are opened here: the log
/// would be written into the journal. Input is empty then, the output an error, and errors go nowhere.
bool claim_standard_descriptors() {
  for (auto [descriptor, access] : {std::pair(STDIN_FILENO, O_RDONLY), {STDOUT_FILENO, O_RDONLY}, {STDERR_FILENO, O_WRONLY}})
    if (::fcntl(descriptor, F_GETFD) == -1 && ::open("/dev/null", access) != descriptor) return false;
  return true;
}

/// Signals that whoever starts this had blocked would never come, and children whose end he ignored could not be waited for.
void unblock_signals() {
  sigset_t none;
  sigemptyset(&none);
  ::sigprocmask(SIG_SETMASK, &none, nullptr);
  std::signal(SIGCHLD, SIG_DFL);
}

}  // namespace

int main(int argc, char** argv) {
  if (!claim_standard_descriptors()) return EX_OSERR;
  unblock_signals();
  return holdfast::proxy::run_command_line(argc, argv);
}
