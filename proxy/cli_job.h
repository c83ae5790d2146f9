// Long work on the journal, as a command has it done.
#pragma once

#include <functional>
#include <string>

#include "journal/journal.h"
#include "proxy/config.h"
#include "proxy/json.h"

namespace holdfast::proxy {

/// Asks the daemon to do it (a resource of the admin socket's that starts a job) and waits, with a progress
/// bar; without a daemon, opens the journal and does it here.
Result<Json> do_job(const Config& config, const std::string& resource, const Json& body, const std::string& what,
                    const std::function<Result<Json>(journal::Journal&)>& do_it_here);

}  // namespace holdfast::proxy
