#include "failover/directory.h"

#include <algorithm>
#include <mutex>
#include <utility>

#include "journal/bytes.h"
#include "journal/canonical_address.h"

namespace holdfast::failover {
namespace {

/// A recipient that is confirmed more often than this is not written again.
constexpr std::int64_t refresh_us = 3'600'000'000;
/// So many are changed before others have their turn.
constexpr std::size_t people_at_once = 500;
constexpr std::string_view name_prefix = "directory:";
/// So many people of a domain who were known, refused one after the other, are too many to be gone.
constexpr std::size_t too_many_to_be_gone = 5;
/// Domains of which some were refused last: more are not remembered.
constexpr std::size_t most_domains = 1000;

/// That of a refusal for good (RFC 2034, RFC 3463); empty: it has none.
std::string_view enhanced_status(std::string_view reply) {
  std::string_view text = reply.size() > 4 ? reply.substr(4) : std::string_view();
  bool has_one = text.size() > 4 && text[0] == '5' && text[1] == '.';
  return has_one ? text.substr(0, text.find(' ')) : std::string_view();
}

std::string domain_of(const std::string& key) { return key.substr(key.rfind('@') + 1); }

std::string encode(const Directory::Person& person) {
  ByteWriter out;
  out.string(person.address);
  out.integer(static_cast<std::uint8_t>(person.exists));
  out.integer(static_cast<std::uint8_t>(person.source));
  out.integer(person.time_us);
  for (const std::string* text : {&person.reply, &person.name, &person.telephone}) out.string(*text);
  for (const auto* list : {&person.aliases, &person.members}) {
    out.integer(static_cast<std::uint32_t>(list->size()));
    for (const std::string& text : *list) out.string(text);
  }
  return out.take();
}

std::optional<Directory::Person> decode(std::string_view bytes) {
  ByteReader in(bytes);
  Directory::Person person;
  person.address = in.string();
  person.exists = in.integer<std::uint8_t>() != 0;
  auto source = in.integer<std::uint8_t>();
  if (source > static_cast<std::uint8_t>(Source::ldap)) return std::nullopt;
  person.source = static_cast<Source>(source);
  person.time_us = in.integer<std::int64_t>();
  for (std::string* text : {&person.reply, &person.name, &person.telephone}) *text = in.string();
  for (auto* list : {&person.aliases, &person.members}) {
    auto count = in.integer<std::uint32_t>();
    for (std::uint32_t i = 0; i < count && in.ok(); ++i) list->emplace_back(in.string());
  }
  if (!in.ok() || !in.at_end()) return std::nullopt;
  return person;
}

}  // namespace

std::string_view to_string(Source source) {
  switch (source) {
    case Source::learned: return "learned";
    case Source::imported: return "imported";
    case Source::ldap: return "ldap";
  }
  return "learned";
}

Source source_of(std::string_view word) {
  for (Source source : {Source::imported, Source::ldap})
    if (word == to_string(source)) return source;
  return Source::learned;
}

bool says_unknown(std::string_view reply) {
  if (!reply.starts_with("550") && !reply.starts_with("551") && !reply.starts_with("553")) return false;
  std::string_view enhanced = enhanced_status(reply);
  return enhanced.empty() || enhanced == "5.1.1" || enhanced == "5.1.6" || enhanced == "5.1.10";
}

void Directory::set_options(DirectoryOptions options) {
  std::unique_lock lock(mutex_);
  version_.fetch_add(1, std::memory_order_relaxed);
  bool has_other_aliases = options.domain_aliases != options_.domain_aliases;
  options_ = std::move(options);
  if (has_other_aliases) find_new_keys();
}

void Directory::find_new_keys() {
  std::vector<Person> all;
  for (auto& [key, person] : std::exchange(people_, {})) {
    changed_.insert(key);
    all.push_back(std::move(person));
  }
  aliases_.clear();
  groups_of_.clear();
  domains_.clear();
  known_.clear();
  refused_.clear();
  learned_ = 0;
  // Of two that are the same now, the one stays that an administrator named, or else that was confirmed last.
  std::sort(all.begin(), all.end(), [](const Person& a, const Person& b) {
    return std::pair(a.source != Source::learned, a.time_us) < std::pair(b.source != Source::learned, b.time_us);
  });
  for (Person& person : all) put(std::move(person));
}

std::string Directory::canonical(std::string_view address) const {
  std::shared_lock lock(mutex_);
  return key_of(address);
}

std::string Directory::key_of(std::string_view address) const {
  std::string canonical = journal::canonical_address(address);
  std::size_t at = canonical.rfind('@');
  return at == std::string::npos ? canonical : canonical.substr(0, at + 1) + key_of_domain(std::string_view(canonical).substr(at + 1));
}

/// Of the domain that it is another name of, if it is.
std::string Directory::key_of_domain(std::string_view domain) const {
  std::string canonical = journal::canonical_domain(domain);
  auto alias = options_.domain_aliases.find(canonical);
  return alias == options_.domain_aliases.end() ? canonical : alias->second;
}

std::string Directory::without_tag(const std::string& address) const {
  const std::string& separator = options_.sub_address_separator;
  std::size_t at = address.rfind('@');
  std::size_t tag = separator.empty() ? std::string::npos : address.find(separator);
  if (at == std::string::npos || tag == std::string::npos || tag == 0 || tag >= at) return address;
  return address.substr(0, tag) + address.substr(at);
}

/// What is known of a canonical address, unless it has aged.
const Directory::Person* Directory::find(const std::string& key, std::int64_t now_us) const {
  auto found = people_.find(key);
  if (found == people_.end()) {
    auto alias = aliases_.find(key);
    if (alias == aliases_.end()) return nullptr;
    found = people_.find(alias->second);
    if (found == people_.end()) return nullptr;
  }
  const Person& person = found->second;
  std::int64_t lasts = person.exists ? options_.positive_us : options_.negative_us;
  if (person.source == Source::learned && now_us - person.time_us > lasts) return nullptr;
  return &person;
}

Directory::Answer Directory::look_up(std::string_view address, std::int64_t now_us) const {
  std::shared_lock lock(mutex_);
  std::string key = key_of(address);
  const Person* person = find(key, now_us);
  if (!person) person = find(without_tag(key), now_us);
  if (person && person->exists) return {Verdict::known, {}};
  std::size_t at = key.rfind('@');
  if (at != std::string::npos && options_.catch_all.count(key.substr(at + 1))) return {Verdict::known, {}};
  if (person) return {Verdict::refused, person->reply};
  return {};
}

void Directory::put(Person person) {
  std::string key = key_of(person.address);
  drop(key);
  for (const std::string& alias : person.aliases) {
    std::string other = key_of(alias);
    auto found = people_.find(other);
    bool is_superseded = found != people_.end() && found->second.source == Source::learned && person.source != Source::learned;
    if (is_superseded) drop(other);
    bool is_new = aliases_.insert_or_assign(other, key).second;
    if (is_new) ++domains_[domain_of(other)];
  }
  for (const std::string& member : person.members) groups_of_[key_of(member)].insert(key);
  changed_.insert(key);
  if (person.exists) ++domains_[domain_of(key)];
  const Person& there = people_[key] = std::move(person);
  if (there.source != Source::learned) {
    version_.fetch_add(1, std::memory_order_relaxed);
    return;
  }
  ++learned_;
  Ages& ages = there.exists ? known_ : refused_;
  auto is_later = [](std::int64_t time_us, const Ages::value_type& one) { return time_us < one.first; };
  ages.emplace(std::upper_bound(ages.begin(), ages.end(), there.time_us, is_later), there.time_us, key);
  bool is_mostly_stale = ages.size() > 2 * learned_ + 1000;
  if (is_mostly_stale) std::erase_if(ages, [&](const auto& one) { return !is_current(one, there.exists); });
}

void Directory::drop(const std::string& key) {
  auto found = people_.find(key);
  if (found == people_.end()) return;
  // What is learned is one address, of nobody else.
  if (found->second.source == Source::learned)
    --learned_;
  else
    version_.fetch_add(1, std::memory_order_relaxed);
  for (const std::string& alias : found->second.aliases) {
    auto one = aliases_.find(key_of(alias));
    if (one == aliases_.end() || one->second != key) continue;
    leave_domain(one->first);
    aliases_.erase(one);
  }
  for (const std::string& member : found->second.members) {
    auto one = groups_of_.find(key_of(member));
    if (one == groups_of_.end()) continue;
    one->second.erase(key);
    if (one->second.empty()) groups_of_.erase(one);
  }
  if (found->second.exists) leave_domain(key);
  people_.erase(found);
  changed_.insert(key);
}

/// An address of somebody who exists is gone.
void Directory::leave_domain(const std::string& key) {
  auto domain = domains_.find(domain_of(key));
  if (--domain->second == 0) domains_.erase(domain);
}

/// The person is still as it was learned then.
bool Directory::is_current(const Ages::value_type& then, bool exists) const {
  auto found = people_.find(then.second);
  if (found == people_.end()) return false;
  const Person& person = found->second;
  return person.source == Source::learned && person.exists == exists && person.time_us == then.first;
}

bool Directory::forget_one(bool exists, std::int64_t before_us) {
  Ages& ages = exists ? known_ : refused_;
  while (!ages.empty() && ages.front().first < before_us) {
    auto oldest = std::move(ages.front());
    ages.pop_front();
    if (!is_current(oldest, exists)) continue;
    drop(oldest.second);
    return true;
  }
  return false;
}

void Directory::forget_aged(std::int64_t now_us) {
  constexpr int most = 1000;
  std::unique_lock lock(mutex_);
  for (bool exists : {true, false}) {
    std::int64_t before_us = now_us - (exists ? options_.positive_us : options_.negative_us);
    for (int i = 0; i < most && forget_one(exists, before_us); ++i) continue;
  }
}

void Directory::learn(std::string_view address, bool exists, const std::string& reply, std::int64_t now_us) {
  {
    std::shared_lock lock(mutex_);
    std::string key = key_of(address);
    auto found = people_.find(key);
    bool is_news = found == people_.end() || found->second.exists != exists ||
                   (found->second.source == Source::learned && now_us - found->second.time_us >= refresh_us);
    bool ends_doubt = exists && !turned_away_.empty() && turned_away_.count(domain_of(key)) > 0;
    if (!is_news && !ends_doubt) return;
  }
  std::unique_lock lock(mutex_);
  take_answer(address, exists, reply, now_us);
}

void Directory::learn_of_before(std::string_view address, bool exists, const std::string& reply, std::int64_t then_us, std::int64_t now_us) {
  std::unique_lock lock(mutex_);
  if (now_us - then_us > (exists ? options_.positive_us : options_.negative_us)) return;
  auto found = people_.find(key_of(address));
  if (found == people_.end() || found->second.time_us < then_us) take_answer(address, exists, reply, then_us);
}

void Directory::take_answer(std::string_view address, bool exists, const std::string& reply, std::int64_t now_us) {
  std::string key = key_of(address);
  if (exists) turned_away_.erase(domain_of(key));
  const Person* known = find(key, now_us);
  // What an administrator said outweighs one answer of the primary.
  if (known && known->source != Source::learned) return;
  bool is_vague = !exists && enhanced_status(reply).empty();
  if (known && known->exists && is_vague) return;
  if (!exists && known && known->exists && has_lost_people(domain_of(key), *known)) return;
  if (!people_.count(key) && learned_ >= options_.most_learned) {
    has_overflowed_.store(true, std::memory_order_relaxed);
    bool has_room = forget_one(false, now_us + 1);
    if (!has_room) return;
  }
  Person person;
  person.address = std::string(address);
  person.exists = exists;
  person.time_us = now_us;
  person.reply = exists ? std::string() : reply;
  put(std::move(person));
}

/// Notes that somebody who was known is refused. True when that is one too many: all who were refused before are known again.
bool Directory::has_lost_people(const std::string& domain, const Person& refused) {
  if (turned_away_.size() >= most_domains && !turned_away_.count(domain)) turned_away_.clear();
  std::vector<Person>& turned_away = turned_away_[domain];
  if (turned_away.size() < too_many_to_be_gone) {
    turned_away.push_back(refused);
    if (turned_away.size() < too_many_to_be_gone) return false;
    for (const Person& one : turned_away) {
      auto now = people_.find(key_of(one.address));
      if (now == people_.end() || now->second.source == Source::learned) put(one);
    }
    lost_domain_ = domain;
  }
  return true;
}

std::string Directory::take_lost_domain() {
  std::unique_lock lock(mutex_);
  return std::exchange(lost_domain_, {});
}

void Directory::import(std::vector<Person> people) {
  for (std::size_t at = 0; at < people.size();) {
    std::unique_lock lock(mutex_);
    for (const std::size_t end = std::min(people.size(), at + people_at_once); at < end; ++at) put(std::move(people[at]));
  }
}

void Directory::replace(Source source, std::vector<Person> people) {
  std::set<std::string> gone;
  {
    std::shared_lock lock(mutex_);
    for (const auto& [key, person] : people_)
      if (person.source == source) gone.insert(key);
  }
  for (std::size_t at = 0; at < people.size();) {
    std::unique_lock lock(mutex_);
    for (const std::size_t end = std::min(people.size(), at + people_at_once); at < end; ++at) replace_one(source, std::move(people[at]), gone);
  }
  for (auto one = gone.begin(); one != gone.end();) {
    std::unique_lock lock(mutex_);
    for (std::size_t i = 0; i < people_at_once && one != gone.end(); ++i, ++one) {
      auto known = people_.find(*one);
      if (known != people_.end() && known->second.source == source) drop(*one);
    }
  }
}

void Directory::replace_one(Source source, Person person, std::set<std::string>& gone) {
  std::string key = key_of(person.address);
  auto known = people_.find(key);
  if (known != people_.end() && known->second.source == Source::imported && source != Source::imported) return;
  bool is_there = gone.erase(key) > 0 && known != people_.end();
  if (is_there) {
    // Who has not changed is not written again.
    std::int64_t time_us = std::exchange(known->second.time_us, person.time_us);
    if (known->second == person) {
      known->second.time_us = time_us;
      return;
    }
  }
  put(std::move(person));
}

std::optional<Source> Directory::remove(std::string_view address) {
  std::unique_lock lock(mutex_);
  std::string key = key_of(address);
  auto found = people_.find(key);
  if (found == people_.end()) return std::nullopt;
  Source source = found->second.source;
  if (source != Source::ldap) drop(key);
  return source;
}

std::vector<Directory::Person> Directory::list() const {
  std::shared_lock lock(mutex_);
  std::vector<Person> all;
  for (const auto& [key, person] : people_) all.push_back(person);
  std::sort(all.begin(), all.end(), [](const Person& a, const Person& b) { return a.address < b.address; });
  return all;
}

std::vector<std::string> Directory::addresses_of(std::string_view person) const { return addresses_of(person, true); }
std::vector<std::string> Directory::own_addresses_of(std::string_view person) const { return addresses_of(person, false); }

bool Directory::has_domain(std::string_view domain) const {
  std::shared_lock lock(mutex_);
  return domains_.contains(key_of_domain(domain));
}

std::vector<std::string> Directory::addresses_of(std::string_view person, bool with_groups) const {
  std::shared_lock lock(mutex_);
  std::string own = key_of(person);
  if (auto alias = aliases_.find(own); alias != aliases_.end()) own = alias->second;
  std::vector<std::string> all{own};
  std::set<std::string> seen{own};
  auto add = [&](const std::string& address) {
    if (seen.insert(key_of(address)).second) all.push_back(key_of(address));
  };
  // A group's addresses bring in the groups that it is a member of.
  for (std::size_t i = 0; i < all.size(); ++i) {
    if (auto found = people_.find(all[i]); found != people_.end())
      for (const std::string& alias : found->second.aliases) add(alias);
    auto groups = with_groups ? groups_of_.find(all[i]) : groups_of_.end();
    if (groups == groups_of_.end()) continue;
    for (const std::string& group : groups->second) add(group);
  }
  std::vector<std::string> in_alias_domains;
  for (const std::string& address : all)
    for (const auto& [alias, domain] : options_.domain_aliases)
      if (std::size_t at = address.rfind('@'); at != std::string::npos && address.substr(at + 1) == domain)
        in_alias_domains.push_back(address.substr(0, at + 1) + alias);
  all.insert(all.end(), in_alias_domains.begin(), in_alias_domains.end());
  return all;
}

std::size_t Directory::size() const {
  std::shared_lock lock(mutex_);
  return people_.size();
}

std::size_t Directory::count(Source source) const {
  std::shared_lock lock(mutex_);
  return static_cast<std::size_t>(std::count_if(people_.begin(), people_.end(), [&](const auto& one) { return one.second.source == source; }));
}

Status Directory::load(const journal::SealedStore& store) {
  std::unique_lock lock(mutex_);
  std::vector<Person> all;
  Status read = store.each([&](journal::SealedStore::Item& item) {
    if (!item.name.starts_with(name_prefix)) return true;
    if (std::optional<Person> person = decode(item.value)) all.push_back(std::move(*person));
    return true;
  });
  std::sort(all.begin(), all.end(), [](const Person& a, const Person& b) { return a.time_us < b.time_us; });
  for (Person& person : all) put(std::move(person));
  changed_.clear();
  return read;
}

Status Directory::store(journal::SealedStore& store) {
  std::vector<journal::SealedStore::Item> items;
  {
    std::unique_lock lock(mutex_);
    for (const std::string& key : changed_) {
      auto found = people_.find(key);
      items.push_back({std::string(name_prefix) + key, found == people_.end() ? std::string() : encode(found->second)});
    }
    changed_.clear();
  }
  if (items.empty()) return {};
  Status stored = store.put(items);
  if (stored) return stored;
  std::unique_lock lock(mutex_);
  for (const auto& item : items) changed_.insert(item.name.substr(name_prefix.size()));
  return stored;
}

}  // namespace holdfast::failover
