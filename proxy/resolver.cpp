#include "proxy/resolver.h"

#include <netdb.h>

#include <algorithm>
#include <cstring>
#include <thread>

#include "proxy/log.h"

namespace holdfast::proxy {

Resolver::Resolver() {
  std::thread([state = state_] { run(*state); }).detach();
}

Resolver::~Resolver() {
  {
    std::lock_guard lock(state_->mutex);
    state_->is_stopping = true;
  }
  state_->wake.notify_one();
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
  for (const std::string& name : names) state_->hosts[name].is_asked = false;
  state_->wake.notify_one();
  state_->answered.wait_for(
      lock, patience, [&] { return std::all_of(names.begin(), names.end(), [&](const std::string& name) { return state_->hosts[name].is_asked; }); });
  std::erase_if(names, [&](const std::string& name) { return !state_->hosts[name].addresses.empty(); });
  return names;
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

void Resolver::run(State& state) {
  pthread_setname_np(pthread_self(), "resolver");
  std::unique_lock lock(state.mutex);
  auto first_unasked = [&] { return std::find_if(state.hosts.begin(), state.hosts.end(), [](const auto& one) { return !one.second.is_asked; }); };
  while (!state.is_stopping) {
    auto found = first_unasked();
    if (found == state.hosts.end()) {
      bool is_woken = state.wake.wait_for(lock, std::chrono::minutes(1), [&] { return state.is_stopping || first_unasked() != state.hosts.end(); });
      if (!is_woken)
        for (auto& [name, host] : state.hosts) host.is_asked = false;
      continue;
    }
    auto& [name, host] = *found;  // names are never taken out
    lock.unlock();
    std::vector<SocketAddress> addresses = look_up(name);
    lock.lock();
    if (state.is_stopping) return;
    if (addresses.empty())
      log(LogLevel::warning, "dns", {{"host", name}, {"problem", "no address found; the last one known stays, and it is tried again every minute"}});
    if (!addresses.empty()) host.addresses = std::move(addresses);
    host.is_asked = true;
    state.answered.notify_all();
  }
}

}  // namespace holdfast::proxy
