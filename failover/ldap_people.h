// What the entries of an LDAP server say about people and groups. Values in, values out: no connection here.
//
// Read are mail (RFC 4524 2.16), Active Directory's proxyAddresses ("SMTP:" before the main address, "smtp:"
// before others), or the further address attributes named, displayName or cn, telephoneNumber or mobile, and
// member or uniqueMember.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "failover/directory.h"

namespace holdfast::failover {

struct LdapEntry {
  std::string dn;                                          ///< normalised: two names of one entry are equal
  std::map<std::string, std::vector<std::string>> values;  ///< by attribute, in lower case, without options
  const std::vector<std::string>& all(const std::string& attribute) const;
  const std::string& first(const std::string& attribute) const;  ///< empty when there is none
};

/// The entries that have a mail address, as people and groups; a group's members by their main addresses.
/// Entries are given by DN, and the members in them are normalised DNs too.
std::vector<Directory::Person> people_of(const std::map<std::string, LdapEntry>& entries, const std::vector<std::string>& alias_attributes,
                                         std::int64_t now_us);

}  // namespace holdfast::failover
