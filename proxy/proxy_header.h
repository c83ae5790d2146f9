// The PROXY protocol, versions 1 and 2: how a load balancer tells who the client is. Sans I/O.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace holdfast::proxy {

/// An address and port, as text for IP addresses ("192.0.2.1", "2001:db8::1").
struct Endpoint {
  std::string address;
  int port = 0;
  bool operator==(const Endpoint&) const = default;
};
/// "192.0.2.1:25" or "[2001:db8::1]:25".
std::string to_string(const Endpoint& endpoint);

struct ProxyHeader {
  bool is_local = false;  ///< LOCAL or UNKNOWN: the balancer speaks for itself; take the connection's own addresses
  Endpoint source, destination;
};

enum class ProxyParse { incomplete, complete, malformed };

/// Reads a header of either version at the start of input. On complete, header and consumed are set.
ProxyParse parse_proxy_header(std::string_view input, ProxyHeader& header, std::size_t& consumed);

/// A version 2 header that says source speaks to destination. When either is not an IP address, or they are not of the
/// same family, a LOCAL header.
std::string make_proxy_header(const Endpoint& source, const Endpoint& destination);

}  // namespace holdfast::proxy
