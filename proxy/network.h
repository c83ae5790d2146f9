// Addresses: of this machine's sockets, of hosts in the configuration, and networks in CIDR form.
#pragma once

#include <netinet/in.h>
#include <sys/socket.h>

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "proxy/proxy_header.h"

namespace holdfast::proxy {

/// A host, by name or address, and a port.
struct HostPort {
  std::string host;
  int port = 0;
  bool operator==(const HostPort&) const = default;
};
/// Reads "host:port", "192.0.2.1:25" or "[2001:db8::1]:25".
std::optional<HostPort> parse_host_port(std::string_view text);
std::string to_string(const HostPort& host_port);

/// A socket address of IPv4 or IPv6, by value.
struct SocketAddress {
  sockaddr_storage storage{};
  socklen_t size = 0;
  const sockaddr* get() const { return reinterpret_cast<const sockaddr*>(&storage); }
  sockaddr* get() { return reinterpret_cast<sockaddr*>(&storage); }
};
/// Nothing unless host is an IP address.
std::optional<SocketAddress> to_socket_address(const HostPort& host_port);
/// IPv4 addresses mapped into IPv6 are shown as IPv4.
Endpoint to_endpoint(const SocketAddress& address);

/// Whether an IP address means this machine to itself.
bool is_loopback(std::string_view address);

/// A network such as 10.0.0.0/8 or 2001:db8::/32; a lone address is a network of one.
class Network {
 public:
  static std::optional<Network> parse(std::string_view text);
  bool contains(const std::string& address) const;
  bool operator==(const Network&) const = default;

 private:
  int family_ = 0;
  std::array<std::uint8_t, 16> bytes_{};
  unsigned prefix_ = 0;
};

}  // namespace holdfast::proxy
