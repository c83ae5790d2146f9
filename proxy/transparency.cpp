#include "proxy/transparency.h"

#include <arpa/inet.h>
#include <fmt/format.h>

#include <cerrno>
#include <cstring>

#include "journal/files.h"

namespace holdfast::proxy {
namespace {

bool is_of_one_machine(const SocketAddress& address) {
  if (address.storage.ss_family == AF_INET) {
    in_addr_t host = ntohl(reinterpret_cast<const sockaddr_in*>(&address.storage)->sin_addr.s_addr);
    return host >> 24 != 0 && !IN_MULTICAST(host) && !IN_BADCLASS(host);
  }
  const in6_addr& host = reinterpret_cast<const sockaddr_in6*>(&address.storage)->sin6_addr;
  return !IN6_IS_ADDR_UNSPECIFIED(&host) && !IN6_IS_ADDR_MULTICAST(&host) && !IN6_IS_ADDR_LINKLOCAL(&host);
}

bool make_transparent(int socket, int family) {
  int one = 1;
  if (family == AF_INET6) return ::setsockopt(socket, IPPROTO_IPV6, IPV6_TRANSPARENT, &one, sizeof one) == 0;
  return ::setsockopt(socket, IPPROTO_IP, IP_TRANSPARENT, &one, sizeof one) == 0;
}

}  // namespace

ConnectFrom source_for(const Endpoint& client, const SocketAddress& primary) {
  std::string there = to_endpoint(primary).address;
  std::optional<SocketAddress> here = to_socket_address({client.address, 0});
  bool has_same_family = here && here->storage.ss_family == primary.storage.ss_family;
  bool is_local = is_loopback(client.address) && !(is_loopback(there) && has_same_family);
  if (is_local || client.address == there) return ConnectFrom::self;
  return has_same_family && is_of_one_machine(*here) ? ConnectFrom::client : ConnectFrom::nowhere;
}

Status may_connect_from_anywhere() {
  FileDescriptor socket(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (socket && make_transparent(socket.get(), AF_INET)) return {};
  return Error{ErrorCode::permission,
               fmt::format("identity: transparent needs root or CAP_NET_RAW: {}; in the service, `systemctl edit holdfast` and add "
                           "AmbientCapabilities=CAP_NET_RAW and CapabilityBoundingSet=CAP_NET_RAW to [Service]",
                           std::strerror(errno))};
}

bool connect_from(int socket, const SocketAddress& source) {
  // Without a port yet: one address may have as many connections as there are ports to each primary, not to all together.
  int one = 1;
  ::setsockopt(socket, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof one);
  return make_transparent(socket, source.storage.ss_family) && ::bind(socket, source.get(), source.size) == 0;
}

}  // namespace holdfast::proxy
