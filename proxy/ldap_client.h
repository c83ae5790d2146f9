// A connection to an LDAP server, by libldap: opened, bound and searched, page by page (RFC 2696).
//
// Blocking; for a thread of its own. A search gives up within a fraction of a second once it should stop.
#pragma once

#include <atomic>
#include <memory>
#include <string>
#include <vector>

#include "failover/ldap_people.h"
#include "proxy/config.h"
#include "proxy/late_ldap.h"

namespace holdfast::proxy {

class LdapClient {
 public:
  /// Connects, secures and binds as configured. Errors name the server, what it said and which key to look
  /// at.
  static Result<std::unique_ptr<LdapClient>> connect(const LdapConfig& config, const std::atomic<bool>& should_stop);

  /// All entries under the base that fit the filter, with the attributes named (none: only their DNs).
  /// Members are normalised DNs.
  Result<std::vector<failover::LdapEntry>> search(const std::string& filter, const std::vector<std::string>& attributes);

  /// The address of the server that answers, of those that the URLs and their names stand for; empty for one on this machine's own socket.
  std::string server() const;

 private:
  struct Unbind {
    void operator()(LDAP* ldap) const { ldap_unbind_ext_s(ldap, nullptr, nullptr); }
  };
  using Message = std::unique_ptr<LDAPMessage, FreedBy<ldap_msgfree>>;

  LdapClient(const LdapConfig& config, const std::atomic<bool>& should_stop) : config_(config), should_stop_(should_stop) {}
  Status open();
  Status secure();
  Status bind();
  Result<Message> await(int id);
  Result<std::string> search_page(const std::string& base, int scope, const std::string& filter, const std::vector<std::string>& attributes,
                                  const std::string& cookie, std::vector<failover::LdapEntry>& into);
  failover::LdapEntry read_entry(LDAPMessage* entry, std::string& rest_of_members);
  Status read_rest_of_members(failover::LdapEntry& entry, const std::string& attribute);
  Error problem(int code, const std::string& what) const;

  const LdapConfig& config_;
  const std::atomic<bool>& should_stop_;
  std::unique_ptr<LDAP, Unbind> ldap_;
};

}  // namespace holdfast::proxy
