// What the log says of people where `log.addresses` is `masked`: enough to follow an event, not who it was. That is in the journal,
// encrypted, under the entry's number, and goes when the entry is erased; what stands in a log goes when that log does. Sans I/O.
#pragma once

#include <string>
#include <string_view>

namespace holdfast::proxy {

/// value as it may stand in the log under key:
/// - a client's address (`client`) is its network, of 24 bits of IPv4 or 48 of IPv6;
/// - another server's words (`reply`) are their codes (RFC 5321 4.2, RFC 3463), since they often repeat the address;
/// - mail addresses, in all else, lose what stands before the at sign (`*@example.org`); `from`, `to` and `person` are addresses even without one.
std::string masked(std::string_view key, std::string_view value);

}  // namespace holdfast::proxy
