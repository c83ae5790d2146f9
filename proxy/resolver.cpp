#include "proxy/resolver.h"

#include <netdb.h>

#include <algorithm>
#include <cstring>
#include <thread>

#include "proxy/log.h"
#include "proxy/thread_shortage.h"

namespace holdfast::proxy {

Resolver::~Resolver() {
  {
    std::lock_guard lock(state_->mutex);
    state_->is_stopping = true;
  }
  state_->wake.notify_all();
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

std::vector<std::string> Resolver::watch(const std::vector<std::string>& hosts, std::chrono::milliseconds patience) {
  std::vector<std::string> names;
  for (const std::string& host : hosts)
    if (!to_socket_address({host, 0})) names.push_back(host);
  std::unique_lock lock(state_->mutex);
  for (const std::string& name : names) {
    Host& host = state_->hosts[name];  // none is ever taken out
    host.is_asked = false;
    if (!host.has_thread) begin_to_ask(name, host);
  }
  state_->wake.notify_all();
  state_->answered.wait_for(
      lock, patience, [&] { return std::all_of(names.begin(), names.end(), [&](const std::string& name) { return state_->hosts[name].is_asked; }); });
  std::erase_if(names, [&](const std::string& name) { return !state_->hosts[name].addresses.empty(); });
  return names;
}

void Resolver::begin_to_ask(const std::string& name, Host& host) {
  try {
    std::thread([state = state_, name] { keep_fresh(*state, name); }).detach();
    host.has_thread = true;
  } catch (const std::system_error& problem) {
    log(LogLevel::error, "dns", {{"host", name}, {"problem", thread_shortage(problem).message}, {"remedy", "then SIGHUP"}});
    host.is_asked = true;
  }
}

std::vector<SocketAddress> Resolver::addresses(const HostPort& host) const {
  if (std::optional<SocketAddress> literal = to_socket_address(host)) return {*literal};
  std::vector<SocketAddress> addresses;
  {
    std::lock_guard lock(state_->mutex);
    auto known = state_->hosts.find(host.host);
    if (known != state_->hosts.end()) addresses = known->second.addresses;
  }
  for (SocketAddress& address : addresses) {
    // sin_port and sin6_port are at the same place.
    auto* v4 = reinterpret_cast<sockaddr_in*>(&address.storage);
    v4->sin_port = htons(static_cast<std::uint16_t>(host.port));
  }
  return addresses;
}

void Resolver::keep_fresh(State& state, const std::string& name) {
  pthread_setname_np(pthread_self(), "resolver");
  std::unique_lock lock(state.mutex);
  Host& host = state.hosts[name];
  while (!state.is_stopping) {
    lock.unlock();
    std::vector<SocketAddress> addresses = look_up(name);
    lock.lock();
    if (state.is_stopping) return;
    if (addresses.empty())
      log(LogLevel::warning, "dns", {{"host", name}, {"problem", "no address found; the last one known stays, and it is tried again every minute"}});
    if (!addresses.empty()) host.addresses = std::move(addresses);
    host.is_asked = true;
    state.answered.notify_all();
    state.wake.wait_for(lock, std::chrono::minutes(1), [&] { return state.is_stopping || !host.is_asked; });
  }
}

}  // namespace holdfast::proxy
