#include "proxy/accounts.h"

#include <fmt/format.h>

#include "journal/canonical_address.h"
#include "proxy/address.h"
#include "proxy/units.h"

namespace holdfast::proxy {

Result<Json> accounts_to_json(const failover::MailboxStore& store) {
  auto list = Json::array();
  auto accounts = store.accounts();
  if (!accounts) return accounts.error();
  for (const failover::Account& one : *accounts)
    list.push_back({{"address", one.address},
                    {"enabled", one.is_enabled},
                    {"has_password", !one.password_hash.empty()},
                    {"changed", format_time(one.changed_us)}});
  return list;
}

Result<std::string> apply_account_change(failover::MailboxStore& store, const Json& change,
                                         const std::function<Status(const std::string& address)>& remove) {
  std::string address = journal::canonical_address(change.at("address").get<std::string>());
  bool is_new = change.value("is_new", false);
  auto known = store.account(address);
  if (!known) return known.error();
  if (is_new && *known) return Error{ErrorCode::invalid, fmt::format("{} has an account already; change it with: holdfast mailbox passwd", address)};
  if (!is_new && !*known) return Error{ErrorCode::not_found, fmt::format("{} has no account; see: holdfast mailbox list", address)};
  if (change.value("removed", false)) {
    if (Status removed = remove(address); !removed) return removed.error();
    return std::string("removed");
  }
  failover::Account account = known->value_or(failover::Account{address, "", true, 0});
  std::string what;
  if (is_new) what = "added";
  if (change.contains("password_hash")) {
    account.password_hash = change["password_hash"].get<std::string>();
    what += what.empty() ? "password" : "";
  }
  if (change.contains("enabled")) {
    account.is_enabled = change["enabled"].get<bool>();
    what += account.is_enabled ? "enabled" : "disabled";
  }
  account.changed_us = journal::now_us();
  if (Status stored = store.put(account); !stored) return stored.error();
  return what;
}

}  // namespace holdfast::proxy
