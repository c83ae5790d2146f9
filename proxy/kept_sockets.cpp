#include "proxy/kept_sockets.h"

#include <fcntl.h>

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <cstring>

namespace holdfast::proxy {
namespace {

constexpr int first_passed = 3;  // SD_LISTEN_FDS_START

/// A number from the environment, which forgets it: no child is to take it for its own.
int take_number(const char* name) {
  const char* text = std::getenv(name);
  int number = 0;
  if (text) std::from_chars(text, text + std::strlen(text), number);
  ::unsetenv(name);
  return number;
}

/// Where it listens; nothing when it does not.
std::string address_of(int socket) {
  int listens = 0;
  socklen_t size = sizeof listens;
  SocketAddress own;
  own.size = sizeof own.storage;
  bool is_listening = ::getsockopt(socket, SOL_SOCKET, SO_ACCEPTCONN, &listens, &size) == 0 && listens == 1;
  if (!is_listening || ::getsockname(socket, own.get(), &own.size) != 0) return "";
  bool is_internet = own.storage.ss_family == AF_INET || own.storage.ss_family == AF_INET6;
  return is_internet ? to_string(to_endpoint(own)) : "";
}

std::string address_of(const HostPort& address) { return to_string(to_endpoint(*to_socket_address(address))); }

}  // namespace

KeptSockets::KeptSockets() {
  bool is_ours = take_number("LISTEN_PID") == ::getpid();
  int count = take_number("LISTEN_FDS");
  ::unsetenv("LISTEN_FDNAMES");
  if (!is_ours) return;
  for (int passed = first_passed; passed < first_passed + count; ++passed) {
    FileDescriptor socket(passed);
    ::fcntl(passed, F_SETFD, FD_CLOEXEC);
    std::string address = address_of(passed);
    if (!address.empty()) kept_.push_back({std::move(address), std::move(socket)});
  }
}

KeptSockets::~KeptSockets() {
  for (const Kept& kept : kept_) stop_listening(kept.socket);
}

bool KeptSockets::has(const HostPort& address) const {
  return std::any_of(kept_.begin(), kept_.end(), [wanted = address_of(address)](const Kept& kept) { return kept.address == wanted; });
}

std::vector<FileDescriptor> KeptSockets::use(const HostPort& address) {
  std::vector<FileDescriptor> sockets;
  for (Kept& kept : kept_) {
    if (kept.address != address_of(address)) continue;
    FileDescriptor socket = duplicate(kept.socket);
    if (!socket) continue;
    ::fcntl(socket.get(), F_SETFL, ::fcntl(socket.get(), F_GETFL) | O_NONBLOCK);
    sockets.push_back(std::move(socket));
    kept.is_used = true;
  }
  return sockets;
}

void KeptSockets::settle() {
  for (const Kept& kept : kept_)
    if (!kept.is_used) stop_listening(kept.socket);
  kept_.clear();
}

FileDescriptor duplicate(const FileDescriptor& socket) { return FileDescriptor(::fcntl(socket.get(), F_DUPFD_CLOEXEC, 0)); }

void stop_listening(const FileDescriptor& socket) { ::shutdown(socket.get(), SHUT_RD); }

}  // namespace holdfast::proxy
