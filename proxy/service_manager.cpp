#include "proxy/service_manager.h"

#include <fmt/format.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <iterator>

namespace holdfast::proxy {
namespace {

/// The system passes 253 descriptors with a datagram (SCM_MAX_FD).
constexpr std::size_t most_at_once = 200;

}  // namespace

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
  hand_over();
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

void ServiceManager::keep(std::vector<FileDescriptor> sockets) {
  std::move(sockets.begin(), sockets.end(), std::back_inserter(to_be_kept_));
  hand_over();
}

void ServiceManager::hand_over() {
  while (!to_be_kept_.empty()) {
    std::size_t count = std::min(to_be_kept_.size(), most_at_once);
    if (!send("FDSTORE=1\nFDNAME=listener", to_be_kept_.data(), count)) return;
    to_be_kept_.erase(to_be_kept_.begin(), to_be_kept_.begin() + static_cast<std::ptrdiff_t>(count));
  }
}

void ServiceManager::tell(const std::string& assignments) {
  if (!send(assignments)) is_behind_ = true;
}

/// With so many sockets from the first on. False when there was no room.
bool ServiceManager::send(const std::string& assignments, const FileDescriptor* first, std::size_t count) const {
  if (socket_.empty()) return true;
  FileDescriptor sender(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  sockaddr_un to{};
  to.sun_family = AF_UNIX;
  std::memcpy(to.sun_path, socket_.data(), socket_.size());
  if (to.sun_path[0] == '@') to.sun_path[0] = '\0';
  auto size = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + socket_.size());
  iovec text{const_cast<char*>(assignments.data()), assignments.size()};
  msghdr message{};
  message.msg_name = &to;
  message.msg_namelen = size;
  message.msg_iov = &text;
  message.msg_iovlen = 1;
  std::vector<int> numbers;
  for (std::size_t i = 0; i < count; ++i) numbers.push_back(first[i].get());
  alignas(cmsghdr) char control[CMSG_SPACE(most_at_once * sizeof(int))] = {};
  if (count > 0) {
    message.msg_control = control;
    message.msg_controllen = CMSG_SPACE(count * sizeof(int));
    cmsghdr* rights = CMSG_FIRSTHDR(&message);
    rights->cmsg_level = SOL_SOCKET;
    rights->cmsg_type = SCM_RIGHTS;
    rights->cmsg_len = CMSG_LEN(count * sizeof(int));
    std::memcpy(CMSG_DATA(rights), numbers.data(), count * sizeof(int));
  }
  ssize_t sent = ::sendmsg(sender.get(), &message, MSG_NOSIGNAL);
  return sent >= 0 || errno != EAGAIN;
}

}  // namespace holdfast::proxy
