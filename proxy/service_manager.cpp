#include "proxy/service_manager.h"

#include <fmt/format.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <ctime>

#include "journal/files.h"

namespace holdfast::proxy {

ServiceManager::ServiceManager() {
  const char* named = std::getenv("NOTIFY_SOCKET");
  if (named && (*named == '/' || *named == '@') && std::strlen(named) < sizeof(sockaddr_un::sun_path)) socket_ = named;
}

void ServiceManager::ready() { tell("READY=1"); }

void ServiceManager::reloading() {
  timespec now{};
  ::clock_gettime(CLOCK_MONOTONIC, &now);
  tell(fmt::format("RELOADING=1\nMONOTONIC_USEC={}", now.tv_sec * 1000000LL + now.tv_nsec / 1000));
}

void ServiceManager::stopping() { tell("STOPPING=1"); }

void ServiceManager::alive() { tell("WATCHDOG=1"); }

void ServiceManager::show(const std::string& state) {
  if (state == shown_) return;
  shown_ = state;
  tell("STATUS=" + state);
}

void ServiceManager::tell(const std::string& assignments) const {
  if (socket_.empty()) return;
  FileDescriptor sender(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  sockaddr_un to{};
  to.sun_family = AF_UNIX;
  std::memcpy(to.sun_path, socket_.data(), socket_.size());
  if (to.sun_path[0] == '@') to.sun_path[0] = '\0';
  auto size = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + socket_.size());
  // Whoever does not read it misses it: nothing waits for a service manager.
  (void)::sendto(sender.get(), assignments.data(), assignments.size(), MSG_NOSIGNAL, reinterpret_cast<const sockaddr*>(&to), size);
}

}  // namespace holdfast::proxy
