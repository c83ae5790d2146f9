// Transparency: the primary sees Holdfast's connections come from the clients' own addresses (`identity: transparent`). The network
// must bring its answers back to this machine, and this machine must take them: deploy/holdfast.nft.
#pragma once

#include "journal/result.h"
#include "proxy/network.h"

namespace holdfast::proxy {

/// From where a connection to the primary is made.
enum class ConnectFrom {
  client,   ///< the client's address
  self,     ///< an address of this machine, which is the truth: the client is on it, or is the primary, which takes nothing from itself
  nowhere,  ///< the client's address cannot reach this one: another family, or no address of one machine
};
/// @param client   the client's address; its port plays no part
/// @param primary  where the connection goes
ConnectFrom source_for(const Endpoint& client, const SocketAddress& primary);

/// Whether the system lets this process connect from addresses that are not its machine's. An error says what is missing.
Status may_connect_from_anywhere();

/// Lets a TCP socket connect from an address of any machine; the port is the system's choice.
///
/// @return false when the system refuses; errno tells why
bool connect_from(int socket, const SocketAddress& source);

}  // namespace holdfast::proxy
