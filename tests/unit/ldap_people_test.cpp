#include "failover/ldap_people.h"

#include <catch2/catch.hpp>

using namespace holdfast::failover;

namespace {

std::vector<Directory::Person> people(std::vector<LdapEntry> list) {
  std::map<std::string, LdapEntry> entries;
  for (LdapEntry& entry : list) entries[entry.dn] = entry;
  return people_of(entries, {"proxyaddresses"}, 7);
}

}  // namespace

TEST_CASE(
    "the main address is mail, else the one marked SMTP:, else any; the rest are aliases, and what is no "
    "mail address is left out") {
  auto found = people({{"cn=a",
                        {{"mail", {"a@example.org", "a2@example.org"}},
                         {"proxyaddresses", {"SMTP:A@example.org", "smtp:a3@example.org", "x500:/o=x", "sip:a@example.org", "smtp:<bad @x"}}}},
                       {"cn=b", {{"proxyaddresses", {"smtp:b2@example.org", "SMTP:b@example.org"}}}},
                       {"cn=c", {{"proxyaddresses", {"c@example.org"}}}},
                       {"cn=d", {{"mail", {"nonsense"}}, {"cn", {"D"}}}}});
  REQUIRE(found.size() == 3);
  CHECK(found[0].address == "a@example.org");
  CHECK(found[0].aliases == std::vector<std::string>{"a2@example.org", "a3@example.org"});
  CHECK(found[1].address == "b@example.org");
  CHECK(found[1].aliases == std::vector<std::string>{"b2@example.org"});
  CHECK(found[2].address == "c@example.org");
  CHECK(found[2].source == Source::ldap);
  CHECK(found[2].time_us == 7);
}

TEST_CASE("names, telephones and members come with it") {
  auto found = people({{"cn=a", {{"mail", {"a@example.org"}}, {"cn", {"a"}}, {"displayname", {"Ada"}}, {"mobile", {"+1"}}}},
                       {"cn=g", {{"mail", {"g@example.org"}}, {"cn", {"group"}}, {"member", {"cn=a", "cn=unknown", "cn=printer"}}}},
                       {"cn=printer", {{"cn", {"printer"}}}}});
  REQUIRE(found.size() == 2);
  CHECK(found[0].name == "Ada");
  CHECK(found[0].telephone == "+1");
  CHECK(found[1].name == "group");
  CHECK(found[1].members == std::vector<std::string>{"a@example.org"});
}
