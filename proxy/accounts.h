// Emergency accounts as the admin socket and the command line speak of them.
#pragma once

#include <functional>
#include <string>

#include "failover/mailbox_store.h"
#include "proxy/json.h"

namespace holdfast::proxy {

/// A list of {"address", "enabled", "has_password", "changed"}.
Result<Json> accounts_to_json(const failover::MailboxStore& store);

/// Applies {"address", "is_new", "password_hash", "enabled", "removed"}; what is not there stays. Returns what was done,
/// for the log. remove takes an account away. Errors: invalid (there is such an account already), not_found, and the store's.
Result<std::string> apply_account_change(failover::MailboxStore& store, const Json& change,
                                         const std::function<Status(const std::string& address)>& remove);

}  // namespace holdfast::proxy
