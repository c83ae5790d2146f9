#include "proxy/resolver.h"

#include <netdb.h>

#include <chrono>
#include <cstring>

#include "proxy/log.h"

namespace holdfast::proxy {

Resolver::Resolver() : thread_([this] { run(); }) {}

Resolver::~Resolver() {
  {
    std::lock_guard lock(mutex_);
    is_stopping_ = true;
  }
  wake_.notify_one();
  thread_.join();
}

std::vector<SocketAddress> Resolver::look_up(const std::string& host) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  std::vector<SocketAddress> addresses;
  if (::getaddrinfo(host.c_str(), nullptr, &hints, &found) != 0) return addresses;
  for (const addrinfo* one = found; one; one = one->ai_next) {
    if (one->ai_family != AF_INET && one->ai_family != AF_INET6) continue;
    SocketAddress address;
    std::memcpy(&address.storage, one->ai_addr, one->ai_addrlen);
    address.size = one->ai_addrlen;
    addresses.push_back(address);
  }
  ::freeaddrinfo(found);
  return addresses;
}

bool Resolver::watch(const std::string& host) {
  if (to_socket_address({host, 0})) return true;
  std::vector<SocketAddress> addresses = look_up(host);
  std::lock_guard lock(mutex_);
  std::vector<SocketAddress>& known = known_[host];
  if (!addresses.empty()) known = std::move(addresses);
  return !known.empty();
}

std::vector<SocketAddress> Resolver::addresses(const HostPort& host) const {
  if (std::optional<SocketAddress> literal = to_socket_address(host)) return {*literal};
  std::vector<SocketAddress> addresses;
  {
    std::lock_guard lock(mutex_);
    auto known = known_.find(host.host);
    if (known != known_.end()) addresses = known->second;
  }
  for (SocketAddress& address : addresses) {
    // sin_port and sin6_port are at the same place.
    auto* v4 = reinterpret_cast<sockaddr_in*>(&address.storage);
    v4->sin_port = htons(static_cast<std::uint16_t>(host.port));
  }
  return addresses;
}

void Resolver::run() {
  pthread_setname_np(pthread_self(), "resolver");
  std::unique_lock lock(mutex_);
  for (;;) {
    if (wake_.wait_for(lock, std::chrono::minutes(1), [this] { return is_stopping_; })) return;
    std::vector<std::string> hosts;
    for (const auto& [host, addresses] : known_) hosts.push_back(host);
    for (const std::string& host : hosts) {
      lock.unlock();
      std::vector<SocketAddress> addresses = look_up(host);
      if (addresses.empty()) log(LogLevel::warning, "dns", {{"host", host}, {"problem", "no address found; keeping the last one known"}});
      lock.lock();
      if (!addresses.empty()) known_[host] = std::move(addresses);
      if (is_stopping_) return;
    }
  }
}

}  // namespace holdfast::proxy
