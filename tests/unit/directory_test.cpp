#include "failover/directory.h"

#include <algorithm>
#include <catch2/catch.hpp>
#include <thread>

#include "tests/unit/journal_fixture.h"

using namespace holdfast::failover;
using holdfast::journal::TemporaryFolder;

namespace {

constexpr std::int64_t hour = 3'600'000'000;
using Verdict = Directory::Verdict;

}  // namespace

TEST_CASE("the directory learns who exists and who does not, and forgets with age") {
  Directory directory{DirectoryOptions()};
  CHECK(directory.look_up("a@example.org", 0).verdict == Verdict::unknown);
  directory.learn("A@Example.org", true, "250 ok", 0);
  directory.learn("no@example.org", false, "550 5.1.1 no", 0);
  CHECK(directory.look_up("a@EXAMPLE.org", hour).verdict == Verdict::known);
  CHECK(directory.look_up("no@example.org", hour).verdict == Verdict::refused);
  CHECK(directory.look_up("no@example.org", 5 * hour).verdict == Verdict::unknown);
  CHECK(directory.look_up("a@example.org", 100 * 24 * hour).verdict == Verdict::unknown);
  directory.learn("no@example.org", true, "250 ok", 6 * hour);
  CHECK(directory.look_up("no@example.org", 6 * hour).verdict == Verdict::known);
}

TEST_CASE("a refusal that may be about the client or the sender does not make somebody unknown who is known") {
  Directory directory{DirectoryOptions()};
  const std::string blocked = "550 rejected because 192.0.2.1 is in a black list";
  directory.learn("ada@example.org", true, "250 ok", 0);
  directory.learn("ada@example.org", false, blocked, hour);
  CHECK(directory.look_up("ada@example.org", hour).verdict == Verdict::known);
  directory.learn("ada@example.org", false, "550 5.1.1 no such user", 2 * hour);
  CHECK(directory.look_up("ada@example.org", 2 * hour).verdict == Verdict::refused);
  // Of whom nothing is known, or nothing any more, it is all there is.
  directory.learn("bob@example.org", false, "550 no such user", 0);
  CHECK(directory.look_up("bob@example.org", hour).verdict == Verdict::refused);
  directory.learn("carla@example.org", true, "250 ok", 0);
  directory.learn("carla@example.org", false, "550 no such user", 100 * 24 * hour);
  CHECK(directory.look_up("carla@example.org", 100 * 24 * hour).verdict == Verdict::refused);
}

TEST_CASE("what is learned later of earlier times does not hide what is newer, and is forgotten in its turn") {
  Directory directory{DirectoryOptions()};
  directory.learn("gone@example.org", false, "550 5.1.1 no", 10 * hour);
  directory.learn_of_before("gone@example.org", true, "250 ok", 9 * hour, 12 * hour);
  CHECK(directory.look_up("gone@example.org", 10 * hour).verdict == Verdict::refused);
  directory.learn_of_before("gone@example.org", true, "250 ok", 11 * hour, 12 * hour);
  CHECK(directory.look_up("gone@example.org", 11 * hour).verdict == Verdict::known);
  directory.learn_of_before("old@example.org", true, "250 ok", 5 * hour, 12 * hour);
  CHECK(directory.look_up("old@example.org", 11 * hour).verdict == Verdict::known);
  directory.learn_of_before("older@example.org", true, "250 ok", 5 * hour, 91 * 24 * hour);
  CHECK(directory.size() == 2);
  directory.forget_aged(90 * 24 * hour + 6 * hour);
  CHECK(directory.size() == 1);
}

TEST_CASE("what was learned and is too old is forgotten, and no more is learned than there is room for") {
  DirectoryOptions options;
  options.most_learned = 100;
  Directory directory{options};
  auto name = [](const char* kind, int number) { return kind + std::to_string(number) + "@example.org"; };
  for (int i = 0; i < 60; ++i) directory.learn(name("real", i), true, "250 ok", i);
  Directory::Person boss;
  boss.address = "boss@example.org";
  boss.source = Source::imported;
  directory.import({boss});
  CHECK_FALSE(directory.take_overflow());
  // A dictionary attack costs nobody who exists his place.
  for (int i = 0; i < 10'000; ++i) directory.learn(name("guess", i), false, "550 5.1.1 no", 1000 + i);
  CHECK(directory.size() == 101);
  CHECK(directory.take_overflow());
  CHECK_FALSE(directory.take_overflow());
  for (int i = 0; i < 60; ++i) CHECK(directory.look_up(name("real", i), 20'000).verdict == Verdict::known);
  CHECK(directory.look_up(name("guess", 9'999), 20'000).verdict == Verdict::refused);
  CHECK(directory.look_up(name("guess", 1), 20'000).verdict == Verdict::unknown);
  // Nor does one at a primary that takes every name.
  for (int i = 0; i < 1'000; ++i) directory.learn(name("any", i), true, "250 ok", 20'000 + i);
  CHECK(directory.size() == 101);
  for (int i = 0; i < 60; ++i) CHECK(directory.look_up(name("real", i), 30'000).verdict == Verdict::known);
  // Confirmed again, one is as young as on its last day.
  directory.learn(name("real", 0), true, "250 ok", 89 * 24 * hour);
  directory.forget_aged(91 * 24 * hour);
  CHECK(directory.size() == 2);
  CHECK(directory.look_up(name("real", 0), 91 * 24 * hour).verdict == Verdict::known);
}

TEST_CASE("sub-addresses, aliases, alias domains and catch-all domains are understood") {
  DirectoryOptions options;
  options.domain_aliases = {{"example.com", "example.org"}};
  options.catch_all = {"all.example.org"};
  Directory directory{options};
  Directory::Person person;
  person.address = "jane@example.org";
  person.aliases = {"j.doe@example.org"};
  person.source = Source::imported;
  directory.import({person});
  for (const char* address :
       {"jane@example.org", "jane+news@example.org", "j.doe@example.org", "j.doe+x@example.com", "Jane@Example.COM", "any@all.example.org"})
    CHECK(directory.look_up(address, 1000 * 24 * hour).verdict == Verdict::known);
  for (const char* address : {"+x@example.org", "jan@example.org", "jane@other.example.org", "jane"})
    CHECK(directory.look_up(address, 0).verdict == Verdict::unknown);
  directory.replace(Source::imported, {});
  CHECK(directory.look_up("j.doe@example.org", 0).verdict == Verdict::unknown);
}

TEST_CASE("a source's people are replaced as a whole; what an administrator imported stays, and what was learned about them gives way") {
  Directory directory{DirectoryOptions()};
  auto person = [](const char* address, Source source, std::vector<std::string> aliases = {}) {
    Directory::Person one;
    one.address = address;
    one.source = source;
    one.aliases = std::move(aliases);
    return one;
  };
  directory.learn("jd@example.org", false, "550 5.1.1 unknown", 1);
  directory.import({person("kept@example.org", Source::imported)});
  directory.replace(Source::ldap, {person("jane@example.org", Source::ldap, {"jd@example.org"}), person("gone@example.org", Source::ldap),
                                   person("kept@example.org", Source::ldap)});
  CHECK(directory.look_up("jd@example.org", 2).verdict == Verdict::known);
  directory.learn("jd@example.org", false, "550 5.1.1 unknown", 3);
  CHECK(directory.look_up("jd@example.org", 4).verdict == Verdict::known);
  directory.replace(Source::ldap, {person("jane@example.org", Source::ldap)});
  CHECK(directory.look_up("jane@example.org", 4).verdict == Verdict::known);
  CHECK(directory.look_up("jd@example.org", 4).verdict == Verdict::unknown);
  CHECK(directory.look_up("gone@example.org", 4).verdict == Verdict::unknown);
  directory.replace(Source::ldap, {});
  CHECK(directory.look_up("kept@example.org", 4).verdict == Verdict::known);
  CHECK(directory.size() == 1);
}

TEST_CASE("what was learned and imported comes back from the store, and nothing of it stands there in the clear") {
  TemporaryFolder folder;
  auto master = holdfast::journal::random_key();
  std::string path = folder.path + "/directory.lmdb";
  {
    auto store = holdfast::journal::SealedStore::open(path, master, holdfast::journal::Environment::Mode::write);
    REQUIRE(store);
    Directory directory{DirectoryOptions()};
    directory.learn("needle@example.org", true, "250 ok", 1);
    directory.learn("gone@example.org", true, "250 ok", 1);
    REQUIRE(directory.store(**store));
    directory.remove("gone@example.org");
    REQUIRE(directory.store(**store));
  }
  {
    auto store = holdfast::journal::SealedStore::open(path, master, holdfast::journal::Environment::Mode::write);
    REQUIRE(store);
    Directory directory{DirectoryOptions()};
    REQUIRE(directory.load(**store));
    CHECK(directory.list().size() == 1);
    CHECK(directory.look_up("needle@example.org", 2).verdict == Verdict::known);
  }
  std::ifstream file(path, std::ios::binary);
  std::string bytes((std::istreambuf_iterator<char>(file)), {});
  CHECK(bytes.find("needle") == std::string::npos);
  auto wrong = holdfast::journal::SealedStore::open(path, holdfast::journal::random_key(), holdfast::journal::Environment::Mode::read);
  REQUIRE(wrong);
  Directory other{DirectoryOptions()};
  CHECK_FALSE(other.load(**wrong));
}

TEST_CASE("only some refusals say that a recipient does not exist") {
  CHECK(says_unknown("550 5.1.1 User unknown\r\n"));
  CHECK(says_unknown("550 5.1.10 no such recipient\r\n"));
  CHECK(says_unknown("550 No such user here\r\n"));
  CHECK_FALSE(says_unknown("550 5.7.1 Blocked by policy\r\n"));
  CHECK_FALSE(says_unknown("554 5.7.1 Relay access denied\r\n"));
  CHECK_FALSE(says_unknown("450 4.2.1 later\r\n"));
  CHECK_FALSE(says_unknown("552 5.2.2 mailbox full\r\n"));
}

TEST_CASE("a person's addresses: its own and aliases, groups in groups, and alias domains; what it may write as leaves groups out") {
  DirectoryOptions options;
  options.domain_aliases["example.com"] = "example.org";
  Directory directory(options);
  Directory::Person ada, team, all;
  ada.address = "ada@example.org";
  team.address = "team@example.org";
  all.address = "all@example.org";
  ada.aliases = {"countess@example.org"};
  team.members = {"Countess@example.org"};
  all.members = {"team@example.org"};
  for (auto* one : {&ada, &team, &all}) one->source = Source::imported;
  std::uint64_t before = directory.version();
  directory.import({ada, team, all});
  CHECK(directory.version() != before);
  auto addresses = directory.addresses_of("ADA@example.com");
  CHECK(addresses.front() == "ada@example.org");
  CHECK(std::set<std::string>(addresses.begin(), addresses.end()) ==
        std::set<std::string>{"ada@example.org", "countess@example.org", "team@example.org", "all@example.org", "ada@example.com",
                              "countess@example.com", "team@example.com", "all@example.com"});
  auto own = directory.own_addresses_of("ada@example.org");
  CHECK(own.size() == 4);
  CHECK(std::find(own.begin(), own.end(), "team@example.org") == own.end());
  CHECK(directory.has_domain("Example.org"));
  CHECK_FALSE(directory.has_domain("example.net"));
}

TEST_CASE("domains in which somebody has an address: aliases and other names of a domain too, while they are there") {
  DirectoryOptions options;
  options.domain_aliases["example.com"] = "example.org";
  Directory directory(options);
  Directory::Person ada, bob;
  ada.address = "ada@example.org", ada.aliases = {"ada@alias.example"}, ada.source = Source::imported;
  bob = ada, bob.address = "bob@example.org";  // the same alias: his now
  auto has = [&](std::initializer_list<const char*> domains) {
    return std::all_of(domains.begin(), domains.end(), [&](const char* domain) { return directory.has_domain(domain); });
  };
  directory.import({ada});
  CHECK(has({"Example.org", "example.com", "alias.example"}));
  directory.import({ada, bob, ada});
  directory.learn("nobody@gone.example", false, "550 5.1.1 who?", 1);
  directory.learn("somebody@new.example", true, "", 1);
  CHECK(has({"new.example"}));
  CHECK_FALSE(directory.has_domain("gone.example"));
  directory.learn("somebody@new.example", false, "550 5.1.1 gone", 2);
  CHECK_FALSE(directory.has_domain("new.example"));
  directory.remove("ada@example.org");
  CHECK(has({"example.org"}));
  bob.aliases.clear();
  directory.import({bob});
  CHECK_FALSE(directory.has_domain("alias.example"));
  directory.set_options(DirectoryOptions());
  CHECK(has({"example.org"}));
  CHECK_FALSE(directory.has_domain("example.com"));
  directory.remove("bob@example.org");
  CHECK_FALSE(directory.has_domain("example.org"));
}

TEST_CASE("a domain with other letters than DNS has is the same in both spellings") {
  DirectoryOptions options;
  options.domain_aliases["xn--strae-oqa.example"] = "xn--mller-kva.example";
  Directory directory(options);
  Directory::Person ada;
  ada.address = "Ada@M\u00dcLLER.example", ada.source = Source::ldap;
  directory.import({ada});
  for (const char* address : {"ada@m\u00fcller.example", "ADA@xn--mller-kva.example", "ada+tag@m\u00fcller.example", "ada@stra\u00dfe.example"})
    CHECK(directory.look_up(address, 1).verdict == Verdict::known);
  CHECK(directory.look_up("ada@muller.example", 1).verdict != Verdict::known);
  CHECK(directory.has_domain("m\u00fcller.example"));
  auto addresses = directory.addresses_of("ada@m\u00fcller.example");
  CHECK(addresses.front() == "ada@xn--mller-kva.example");
  CHECK(std::set<std::string>(addresses.begin(), addresses.end()) == std::set<std::string>{"ada@xn--mller-kva.example", "ada@xn--strae-oqa.example"});
  // What is none is compared as it is.
  directory.learn("bob@\xff\xfe.example", true, "", 1);
  CHECK(directory.look_up("BOB@\xff\xfe.EXAMPLE", 1).verdict == Verdict::known);
}

TEST_CASE("when a domain becomes another name of one, or is none any more, who is known is known under the new names, and stored so") {
  const std::int64_t now_us = 1'700'000'000'000'000;
  DirectoryOptions plain, with_alias;
  with_alias.domain_aliases["example.com"] = "example.org";
  Directory directory(plain);
  Directory::Person ada, team, learned;
  ada.address = "ada@example.com", ada.name = "Ada", ada.aliases = {"countess@example.com"}, ada.source = Source::imported;
  team.address = "team@example.com", team.members = {"ada@example.com"}, team.source = Source::imported;
  directory.import({ada, team});
  directory.learn("ada@example.org", true, "", now_us);
  directory.learn("bob@example.com", true, "", now_us);
  auto is_known = [&](const char* address) { return directory.look_up(address, now_us).verdict == Directory::Verdict::known; };
  CHECK_FALSE(is_known("bob@example.org"));
  directory.set_options(with_alias);
  for (const char* address : {"ada@example.org", "ada@example.com", "countess@example.org", "bob@example.org", "team@example.org"})
    CHECK(is_known(address));
  CHECK(directory.size() == 3);
  auto addresses = directory.addresses_of("ada@example.org");
  CHECK(std::find(addresses.begin(), addresses.end(), "team@example.org") != addresses.end());
  directory.set_options(plain);
  CHECK(is_known("bob@example.com"));
  CHECK_FALSE(is_known("bob@example.org"));
  CHECK(directory.addresses_of("ada@example.com").size() == 3);
}

TEST_CASE("many are replaced some at a time; who left a group does not get its mail, and who is gone is gone") {
  Directory directory((DirectoryOptions()));
  auto people = [](int first, int end) {
    std::vector<Directory::Person> all(1);
    all[0].address = "all@example.org", all[0].source = Source::ldap;
    for (int i = first; i < end; ++i) {
      Directory::Person one;
      one.address = "p" + std::to_string(i) + "@example.org", one.source = Source::ldap;
      all[0].members.push_back(one.address);
      all.push_back(std::move(one));
    }
    return all;
  };
  directory.replace(Source::ldap, people(0, 3000));
  CHECK(directory.size() == 3001);
  CHECK(directory.addresses_of("p0@example.org").size() == 2);
  directory.replace(Source::ldap, people(1500, 4000));
  CHECK(directory.size() == 2501);
  CHECK(directory.addresses_of("p0@example.org").size() == 1);
  for (const char* address : {"p1500@example.org", "p3999@example.org"}) CHECK(directory.addresses_of(address).size() == 2);
}

TEST_CASE("options may change, with a reload, while other threads look addresses up") {
  Directory directory{DirectoryOptions()};
  std::thread reloader([&] {
    for (int i = 0; i < 2000; ++i) {
      DirectoryOptions options;
      for (const char* alias : {"example.com", "example.net", "a-long-name-for-an-alias.example.com"}) options.domain_aliases[alias] = "example.org";
      directory.set_options(options);
    }
  });
  int wrong = 0;
  for (int i = 0; i < 20000; ++i) {
    std::string canonical = directory.canonical("Ada@a-long-name-for-an-alias.example.com");
    wrong += canonical != "ada@example.org" && canonical != "ada@a-long-name-for-an-alias.example.com";
  }
  reloader.join();
  CHECK(wrong == 0);
  CHECK(directory.canonical("ada@example.net") == "ada@example.org");
}

TEST_CASE("when one after the other of a domain is refused, and nobody taken, it is the primary that has lost its people") {
  Directory directory((DirectoryOptions()));
  const std::int64_t now_us = 1'700'000'000'000'000;
  auto name = [](int number, const char* domain = "example.org") { return "p" + std::to_string(number) + "@" + domain; };
  auto refuse = [&](const std::string& address) { directory.learn(address, false, "550 5.1.1 User unknown", now_us); };
  auto is_known = [&](const std::string& address) { return directory.look_up(address, now_us).verdict == Directory::Verdict::known; };
  for (int i = 0; i < 10; ++i)
    for (const char* domain : {"example.org", "example.com"}) directory.learn(name(i, domain), true, "", now_us);
  for (int i = 0; i < 4; ++i) refuse(name(i));
  for (int i = 0; i < 10; ++i) CHECK(is_known(name(i)) == (i >= 4));
  CHECK(directory.take_lost_domain().empty());
  refuse("nobody@example.org");  // was never known: that tells nothing
  directory.learn(name(0, "example.com"), true, "", now_us);
  refuse(name(4));
  for (int i = 0; i < 10; ++i) CHECK(is_known(name(i)));
  CHECK(directory.take_lost_domain() == "example.org");
  CHECK(directory.take_lost_domain().empty());
  for (int i = 0; i < 10; ++i) refuse(name(i));
  for (int i = 0; i < 10; ++i) CHECK(is_known(name(i)));
  CHECK_FALSE(is_known("nobody@example.org"));
  // It has them again: what it says counts.
  directory.learn(name(9), true, "", now_us);
  refuse(name(4));
  CHECK_FALSE(is_known(name(4)));
  CHECK(is_known(name(5)));
  // So it has when it takes one who was imported.
  for (int i = 5; i < 8; ++i) refuse(name(i));
  Directory::Person boss;
  boss.address = "boss@example.org";
  boss.source = Source::imported;
  directory.import({boss});
  directory.learn("boss@example.org", true, "", now_us);
  refuse(name(8));
  for (int i = 4; i < 9; ++i) CHECK_FALSE(is_known(name(i)));
  CHECK(directory.take_lost_domain().empty());
}
