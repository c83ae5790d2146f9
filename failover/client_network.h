// Who counts as one client: an IPv4 address, or an IPv6 network of /64, which its owner has whole (RFC 6177).
#pragma once

#include <string>

namespace holdfast::failover {

/// The IPv6 network of an address, as text; an IPv4 address, or what is none, as it is.
std::string client_network(const std::string& address);

}  // namespace holdfast::failover
