#include "proxy/network.h"

#include <arpa/inet.h>
#include <fmt/format.h>

#include <cstring>

#include "proxy/command.h"

namespace holdfast::proxy {

std::optional<HostPort> parse_host_port(std::string_view text) {
  std::size_t colon = text.rfind(':');
  if (colon == std::string_view::npos || colon == 0) return std::nullopt;
  std::string_view host = text.substr(0, colon);
  if (host.starts_with('[') && host.ends_with(']'))
    host = host.substr(1, host.size() - 2);
  else if (host.find(':') != std::string_view::npos)
    return std::nullopt;
  std::optional<std::uint64_t> port = parse_number(text.substr(colon + 1));
  if (host.empty() || !port || *port > 65535) return std::nullopt;
  return HostPort{std::string(host), static_cast<int>(*port)};
}

std::string to_string(const HostPort& host_port) { return to_string(Endpoint{host_port.host, host_port.port}); }

std::optional<SocketAddress> to_socket_address(const HostPort& host_port) {
  SocketAddress address;
  sockaddr_in v4{};
  v4.sin_family = AF_INET;
  v4.sin_port = htons(static_cast<std::uint16_t>(host_port.port));
  if (inet_pton(AF_INET, host_port.host.c_str(), &v4.sin_addr) == 1) {
    std::memcpy(&address.storage, &v4, sizeof v4);
    address.size = sizeof v4;
    return address;
  }
  sockaddr_in6 v6{};
  v6.sin6_family = AF_INET6;
  v6.sin6_port = htons(static_cast<std::uint16_t>(host_port.port));
  if (inet_pton(AF_INET6, host_port.host.c_str(), &v6.sin6_addr) != 1) return std::nullopt;
  std::memcpy(&address.storage, &v6, sizeof v6);
  address.size = sizeof v6;
  return address;
}

Endpoint to_endpoint(const SocketAddress& address) {
  char text[INET6_ADDRSTRLEN] = "";
  if (address.storage.ss_family == AF_INET) {
    sockaddr_in v4;
    std::memcpy(&v4, &address.storage, sizeof v4);
    inet_ntop(AF_INET, &v4.sin_addr, text, sizeof text);
    return {text, ntohs(v4.sin_port)};
  }
  if (address.storage.ss_family != AF_INET6) return {};
  sockaddr_in6 v6;
  std::memcpy(&v6, &address.storage, sizeof v6);
  if (IN6_IS_ADDR_V4MAPPED(&v6.sin6_addr))
    inet_ntop(AF_INET, v6.sin6_addr.s6_addr + 12, text, sizeof text);
  else
    inet_ntop(AF_INET6, &v6.sin6_addr, text, sizeof text);
  return {text, ntohs(v6.sin6_port)};
}

bool is_loopback(std::string_view address) { return address.starts_with("127.") || address == "::1"; }

std::optional<Network> Network::parse(std::string_view text) {
  std::size_t slash = text.find('/');
  std::string address(text.substr(0, slash));
  Network network;
  network.family_ = address.find(':') == std::string::npos ? AF_INET : AF_INET6;
  if (inet_pton(network.family_, address.c_str(), network.bytes_.data()) != 1) return std::nullopt;
  unsigned bits = network.family_ == AF_INET ? 32 : 128;
  network.prefix_ = bits;
  if (slash != std::string_view::npos) {
    std::optional<std::uint64_t> prefix = parse_number(text.substr(slash + 1));
    if (!prefix || *prefix > bits) return std::nullopt;
    network.prefix_ = static_cast<unsigned>(*prefix);
  }
  return network;
}

bool Network::contains(const std::string& address) const {
  std::array<std::uint8_t, 16> bytes{};
  if (inet_pton(family_, address.c_str(), bytes.data()) != 1) return false;
  for (unsigned bit = 0; bit < prefix_; ++bit) {
    auto mask = static_cast<std::uint8_t>(0x80U >> (bit % 8));
    if ((bytes[bit / 8] & mask) != (bytes_[bit / 8] & mask)) return false;
  }
  return true;
}

}  // namespace holdfast::proxy
