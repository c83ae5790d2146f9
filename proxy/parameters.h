// ESMTP parameters of MAIL and RCPT: which were offered, which are what their extensions want, and what becomes of them when a message
// goes on to a server later than its client said them. Sans I/O.
#pragma once

#include <chrono>
#include <cstdint>
#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>

#include "proxy/command.h"
#include "proxy/ehlo.h"

namespace holdfast::proxy {

/// The first parameter of MAIL or RCPT that was not offered, as written, or nothing. Without EHLO (capabilities is null) all that
/// Holdfast knows may be used; the primary will say what it thinks of it.
std::optional<std::string> first_unoffered(const EnvelopeCommand& command, const Capabilities* capabilities);

/// The first parameter that belongs to the other command, stands there a second time, or has a value that is not what its extension wants,
/// as written; or nothing. A primary looks itself; who answers in its place must not take what it would refuse later.
///
/// @param params  as they stood in the command, parted by spaces
/// @param verb    Verb::mail or Verb::rcpt
std::optional<std::string> first_malformed(std::string_view params, Verb verb);

/// Those parameters of a MAIL or RCPT that are offered, each behind a space.
///
/// @param params   as they stood in the command, parted by spaces
/// @param without  keys that are left out in any case, in upper case
std::string offered_params(std::string_view params, const Capabilities& capabilities, std::initializer_list<std::string_view> without = {});

/// What a message's parameters say when they are said again, after a hold or in a replay, each behind a space. Others than these stay as
/// they are.
/// - ENVID and ORCPT are written as RFC 3461 4 wants it: many primaries take raw characters there, and so does who answers in their
///   place; those that do not would refuse the message for it.
/// - The time in which it waited is taken off BY (RFC 2852 4) and HOLDFOR (RFC 4865 4); a HOLDFOR or HOLDUNTIL that is over is left out.
///   Of BY in mode R at least a second is left: a server takes no less there, and returns the message itself.
///
/// @param params  as they stood in the command, parted by spaces
/// @param waited  since the client said them
/// @param now_us  in microseconds since 1970
std::string params_said_again(std::string_view params, std::chrono::seconds waited, std::int64_t now_us);

}  // namespace holdfast::proxy
