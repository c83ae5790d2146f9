#include "proxy/service_manager.h"

#include <fmt/format.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <cerrno>
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

void ServiceManager::ready() { tell(state_ = "READY=1"); }

void ServiceManager::reloading() {
  timespec now{};
  ::clock_gettime(CLOCK_MONOTONIC, &now);
  tell(state_ = fmt::format("RELOADING=1\nMONOTONIC_USEC={}", now.tv_sec * 1000000LL + now.tv_nsec / 1000));
}

void ServiceManager::stopping() { tell(state_ = "STOPPING=1"); }

void ServiceManager::alive() {
  if (is_behind_) is_behind_ = !send(state_ + "\nSTATUS=" + shown_);
  auto now = std::chrono::steady_clock::now();
  if (now < next_sign_) return;
  next_sign_ = now + std::chrono::seconds(1);
  send("WATCHDOG=1");
}

void ServiceManager::show(const std::string& state) {
  if (state == shown_) return;
  shown_ = state;
  tell("STATUS=" + state);
}

void ServiceManager::tell(const std::string& assignments) {
  if (!send(assignments)) is_behind_ = true;
}

/// False when there was no room.
bool ServiceManager::send(const std::string& assignments) const {
  if (socket_.empty()) return true;
  FileDescriptor sender(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  sockaddr_un to{};
  to.sun_family = AF_UNIX;
  std::memcpy(to.sun_path, socket_.data(), socket_.size());
  if (to.sun_path[0] == '@') to.sun_path[0] = '\0';
  auto size = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + socket_.size());
  ssize_t sent = ::sendto(sender.get(), assignments.data(), assignments.size(), MSG_NOSIGNAL, reinterpret_cast<const sockaddr*>(&to), size);
  return sent >= 0 || errno != EAGAIN;
}

}  // namespace holdfast::proxy
