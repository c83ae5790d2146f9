// Asking the running daemon on its admin socket (admin.h), as the commands do.
#pragma once

#include <sys/un.h>

#include <chrono>
#include <string>

#include "journal/result.h"
#include "proxy/json.h"

namespace holdfast::proxy {

/// The address of a Unix socket. The configuration has seen that the path is no longer than one may be.
sockaddr_un unix_address(const std::string& path);

/// Asks a running daemon for a resource on the socket at path, with what it needs to know. Errors: the daemon's own, no_daemon, or
/// unavailable when it does not answer within patience. Blocks; from any thread.
Result<Json> ask_admin(const std::string& path, const std::string& resource, const Json& body = Json::object(),
                       std::chrono::milliseconds patience = std::chrono::seconds(5));

}  // namespace holdfast::proxy
