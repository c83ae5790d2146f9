#include "failover/ldap_people.h"

#include <algorithm>

#include "journal/catalog.h"
#include "journal/canonical_address.h"

namespace holdfast::failover {
namespace {

/// "SMTP:a@b" and "smtp:a@b" are mail addresses, "x500:..." and "sip:..." are not; neither is what has no @
/// or a blank.
std::string mail_address(const std::string& value) {
  std::size_t colon = value.find(':');
  std::string address = value;
  if (colon != std::string::npos) {
    if (journal::normalise(value.substr(0, colon)) != "smtp") return {};
    address = value.substr(colon + 1);
  }
  std::size_t at = address.rfind('@');
  bool is_address = at != std::string::npos && at > 0 && at + 1 < address.size() && address.find_first_of(" \t\r\n<>") == std::string::npos;
  return is_address ? address : std::string();
}

std::string main_address(const LdapEntry& entry, const std::vector<std::string>& alias_attributes) {
  if (std::string address = mail_address(entry.first("mail")); !address.empty()) return address;
  std::string any;
  for (const std::string& attribute : alias_attributes)
    for (const std::string& value : entry.all(attribute)) {
      std::string address = mail_address(value);
      if (value.starts_with("SMTP:") && !address.empty()) return address;
      if (any.empty()) any = address;
    }
  return any;
}

const std::string& first_of(const LdapEntry& entry, const char* one, const char* other) {
  const std::string& value = entry.first(one);
  return value.empty() ? entry.first(other) : value;
}

}  // namespace

const std::vector<std::string>& LdapEntry::all(const std::string& attribute) const {
  static const std::vector<std::string> none;
  auto found = values.find(attribute);
  return found == values.end() ? none : found->second;
}

const std::string& LdapEntry::first(const std::string& attribute) const {
  static const std::string none;
  const std::vector<std::string>& list = all(attribute);
  return list.empty() ? none : list.front();
}

std::vector<Directory::Person> people_of(const std::map<std::string, LdapEntry>& entries, const std::vector<std::string>& alias_attributes,
                                         std::int64_t now_us) {
  std::vector<Directory::Person> people;
  for (const auto& [dn, entry] : entries) {
    Directory::Person person;
    person.address = main_address(entry, alias_attributes);
    if (person.address.empty()) continue;
    person.source = Source::ldap;
    person.time_us = now_us;
    person.name = first_of(entry, "displayname", "cn");
    person.telephone = first_of(entry, "telephonenumber", "mobile");
    auto add_alias = [&person](const std::string& value) {
      std::string alias = mail_address(value);
      bool is_new = !alias.empty() && journal::canonical_address(alias) != journal::canonical_address(person.address) &&
                    std::find(person.aliases.begin(), person.aliases.end(), alias) == person.aliases.end();
      if (is_new) person.aliases.push_back(alias);
    };
    for (const std::string& value : entry.all("mail")) add_alias(value);
    for (const std::string& attribute : alias_attributes)
      for (const std::string& value : entry.all(attribute)) add_alias(value);
    for (const char* attribute : {"member", "uniquemember"})
      for (const std::string& member : entry.all(attribute)) {
        auto found = entries.find(member);
        if (found == entries.end()) continue;
        if (std::string address = main_address(found->second, alias_attributes); !address.empty()) person.members.push_back(address);
      }
    people.push_back(std::move(person));
  }
  return people;
}

}  // namespace holdfast::failover
