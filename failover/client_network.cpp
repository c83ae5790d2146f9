#include "failover/client_network.h"

#include <arpa/inet.h>

#include <algorithm>
#include <array>

namespace holdfast::failover {

std::string client_network(const std::string& address) {
  std::array<unsigned char, 16> bytes{};
  if (inet_pton(AF_INET6, address.c_str(), bytes.data()) != 1) return address;
  std::fill(bytes.begin() + 8, bytes.end(), 0);
  char text[INET6_ADDRSTRLEN];
  return inet_ntop(AF_INET6, bytes.data(), text, sizeof text);
}

}  // namespace holdfast::failover
