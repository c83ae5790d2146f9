#include "proxy/alerter.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>
#include <vector>

#include "proxy/log.h"

namespace holdfast::proxy {
namespace {

constexpr std::size_t most_alerts_waiting = 100;
constexpr int patience_ms = 30'000;

/// Our own environment, and the facts.
std::vector<std::string> environment(const Alerter::Facts& facts) {
  std::vector<std::string> all;
  for (char** one = environ; *one; ++one) all.emplace_back(*one);
  for (const auto& [name, value] : facts) all.push_back(name + "=" + escape(value));
  return all;
}

/// In a process group of its own, without our signals' settings and files, and with nothing to read. Returns 0, or an error's number.
int start(const std::string& command, const Alerter::Facts& facts, pid_t& process) {
  std::vector<std::string> variables = environment(facts);
  std::vector<char*> pointers;
  for (std::string& one : variables) pointers.push_back(one.data());
  pointers.push_back(nullptr);
  std::string shell = "sh", option = "-c", text = command;
  char* const arguments[] = {shell.data(), option.data(), text.data(), nullptr};

  posix_spawn_file_actions_t files;
  posix_spawnattr_t attributes;
  posix_spawn_file_actions_init(&files);
  posix_spawnattr_init(&attributes);
  posix_spawn_file_actions_addopen(&files, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_addclosefrom_np(&files, STDERR_FILENO + 1);
  sigset_t none, all;
  sigemptyset(&none);
  sigfillset(&all);
  posix_spawnattr_setsigmask(&attributes, &none);
  posix_spawnattr_setsigdefault(&attributes, &all);
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
  int problem = ::posix_spawn(&process, "/bin/sh", &files, &attributes, arguments, pointers.data());
  posix_spawnattr_destroy(&attributes);
  posix_spawn_file_actions_destroy(&files);
  return problem;
}

}  // namespace

Alerter::Alerter() : stop_(::eventfd(0, EFD_CLOEXEC)), thread_([this] { run(); }) {}

Alerter::~Alerter() {
  {
    std::lock_guard lock(mutex_);
    is_stopping_ = true;
  }
  wake_.notify_one();
  ::eventfd_write(stop_.get(), 1);
  thread_.join();
}

void Alerter::set_command(std::string command) {
  std::lock_guard lock(mutex_);
  command_ = std::move(command);
}

void Alerter::tell(Facts facts) {
  std::lock_guard lock(mutex_);
  if (command_.empty()) return;
  if (waiting_.size() >= most_alerts_waiting) {
    log(LogLevel::error, "alert", {{"problem", "alert_command is too slow: this is not told"}, {"alert", facts["HOLDFAST_ALERT"]}});
    return;
  }
  waiting_.push_back(std::move(facts));
  wake_.notify_one();
}

void Alerter::run() {
  pthread_setname_np(pthread_self(), "alerter");
  for (;;) {
    std::string command;
    Facts facts;
    {
      std::unique_lock lock(mutex_);
      wake_.wait(lock, [this] { return is_stopping_ || !waiting_.empty(); });
      if (is_stopping_) return;
      facts = std::move(waiting_.front());
      waiting_.pop_front();
      command = command_;
    }
    if (command.empty()) continue;
    std::string problem = alert(command, facts);
    if (!problem.empty())
      log(LogLevel::error, "alert",
          {{"problem", "alert_command: " + problem}, {"alert", facts["HOLDFAST_ALERT"]}, {"remedy", "run it by hand as the same user: " + command}});
  }
}

std::string Alerter::alert(const std::string& command, const Facts& facts) {
  pid_t process = 0;
  if (int problem = start(command, facts, process); problem != 0) return std::strerror(problem);
  FileDescriptor handle(static_cast<int>(::syscall(SYS_pidfd_open, process, 0)));
  pollfd ends[] = {{handle.get(), POLLIN, 0}, {stop_.get(), POLLIN, 0}};
  int happened = 1;  // without a handle it is waited for without a limit
  while (handle && (happened = ::poll(ends, 2, patience_ms)) < 0 && errno == EINTR) continue;
  if (ends[1].revents != 0) return "";
  if (happened == 0) ::kill(-process, SIGKILL);
  int status = 0;
  while (::waitpid(process, &status, 0) < 0 && errno == EINTR) continue;
  if (happened == 0) return fmt::format("it took longer than {} s, and was ended", patience_ms / 1000);
  if (WIFSIGNALED(status)) return fmt::format("it ended with signal {}", WTERMSIG(status));
  return WEXITSTATUS(status) == 0 ? "" : fmt::format("it ended with exit code {}", WEXITSTATUS(status));
}

}  // namespace holdfast::proxy
