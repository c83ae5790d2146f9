// The directory: which recipients exist. Learned from the primary's own answers to RCPT, imported, or synced from LDAP.
//
// Thread-safe: sessions of all loops ask and teach it. It lives in memory; what changed is stored now and then by store().
#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <shared_mutex>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "journal/sealed_store.h"

namespace holdfast::failover {

struct DirectoryOptions {
  std::set<std::string> catch_all;                    ///< domains of which every address exists
  std::string sub_address_separator = "+";            ///< "" for none: user+tag is user
  std::map<std::string, std::string> domain_aliases;  ///< alias -> the domain it stands for
  std::int64_t positive_us = 90LL * 86'400'000'000;   ///< how long a learned "exists" is believed, in microseconds
  std::int64_t negative_us = 4LL * 3'600'000'000;     ///< how long a learned "does not exist" is believed
  std::size_t most_learned = 200'000;                 ///< more are not remembered: anybody can have names asked for
  bool operator==(const DirectoryOptions&) const = default;
};

/// Where an entry of the directory comes from. Imported and synced ones do not age.
enum class Source : std::uint8_t { learned = 0, imported = 1, ldap = 2 };
std::string_view to_string(Source source);
/// The inverse; learned when it is no such word.
Source source_of(std::string_view word);

class Directory {
 public:
  explicit Directory(DirectoryOptions options) : options_(std::move(options)) {}
  void set_options(DirectoryOptions options);

  struct Person {
    std::string address;  ///< as learned or imported
    bool exists = true;
    Source source = Source::learned;
    std::int64_t time_us = 0;  ///< when it was last confirmed
    std::string reply;         ///< the primary's refusal, when it does not exist
    std::string name, telephone;
    std::vector<std::string> aliases;  ///< further addresses of the same person
    std::vector<std::string> members;  ///< of a group
    bool operator==(const Person&) const = default;
  };

  enum class Verdict { known, refused, unknown };
  struct Answer {
    Verdict verdict = Verdict::unknown;
    std::string reply;  ///< the primary's own words, when refused
  };
  /// Does it exist? Sub-addresses, domain aliases and catch-all domains are taken into account.
  Answer look_up(std::string_view address, std::int64_t now_us) const;

  /// The primary took the recipient, or refused it as unknown. When there is no room, the oldest refused one is forgotten for it, and
  /// if there is none, nothing is learned.
  /// A refusal without an enhanced status code may be about the client or the sender: who is known to exist stays known. So does, when
  /// one after the other of a domain is refused and nobody taken, everybody there: it is the primary that has lost its people.
  void learn(std::string_view address, bool exists, const std::string& reply, std::int64_t now_us);
  /// The same of an answer that was given some time ago: what is known of later outweighs it, and what is not believed any more is
  /// not learned.
  void learn_of_before(std::string_view address, bool exists, const std::string& reply, std::int64_t then_us, std::int64_t now_us);
  /// Forgets what was learned so long ago that it is not believed any more; a thousand of each kind at most.
  void forget_aged(std::int64_t now_us);
  /// Whether there was no room for something since the last time.
  bool take_overflow() { return has_overflowed_.exchange(false, std::memory_order_relaxed); }
  /// A domain of which that is so, if that is news since the last time; else an empty text.
  std::string take_lost_domain();
  /// Adds or replaces. Of many, as here and in replace(), some at a time: who looks somebody up meanwhile does not wait for all.
  void import(std::vector<Person> people);
  /// Replaces all that came from that source: those who are gone there are gone here. What was imported stays as it is.
  void replace(Source source, std::vector<Person> people);
  /// Forgets an address, unless it comes from LDAP, which would bring it back. Returns where it comes from; nothing when it is not known.
  std::optional<Source> remove(std::string_view address);
  std::vector<Person> list() const;
  std::size_t size() const;
  std::size_t count(Source source) const;

  /// All addresses under which a person gets mail: its own, aliases, those of groups that it is a member of (groups in groups too), and
  /// the same in domains that are aliases. In canonical form, the person's own first; sub-addresses are left out.
  std::vector<std::string> addresses_of(std::string_view person) const;

  /// Changes whenever anybody's addresses may have.
  std::uint64_t version() const { return version_.load(std::memory_order_relaxed); }
  /// Those of them that are the person's alone: what it may write as.
  std::vector<std::string> own_addresses_of(std::string_view person) const;
  /// Whether anybody has an address in the domain.
  bool has_domain(std::string_view domain) const;

  /// Reads what was stored.
  Status load(const journal::SealedStore& store);
  /// Stores what changed since the last time. To be called from one thread.
  Status store(journal::SealedStore& store);

  /// The form under which an address is looked up. Thread-safe.
  std::string canonical(std::string_view address) const;

 private:
  std::string key_of(std::string_view address) const;
  std::string key_of_domain(std::string_view domain) const;
  std::string without_tag(const std::string& address) const;
  std::vector<std::string> addresses_of(std::string_view person, bool with_groups) const;
  const Person* find(const std::string& key, std::int64_t now_us) const;
  /// Learned people by age; of whom some have changed since.
  using Ages = std::deque<std::pair<std::int64_t, std::string>>;
  void find_new_keys();
  void put(Person person);
  void replace_one(Source source, Person person, std::set<std::string>& gone);
  void take_answer(std::string_view address, bool exists, const std::string& reply, std::int64_t now_us);
  bool has_lost_people(const std::string& domain, const Person& refused);
  void drop(const std::string& key);
  void leave_domain(const std::string& key);
  bool is_current(const Ages::value_type& then, bool exists) const;
  bool forget_one(bool exists, std::int64_t before_us);

  mutable std::shared_mutex mutex_;
  DirectoryOptions options_;
  std::unordered_map<std::string, Person> people_;                    ///< by canonical address
  std::unordered_map<std::string, std::string> aliases_;              ///< canonical alias -> canonical address
  std::unordered_map<std::string, std::set<std::string>> groups_of_;  ///< canonical member -> canonical groups
  std::unordered_map<std::string, std::size_t> domains_;              ///< addresses of who exists, and aliases; by canonical domain
  std::set<std::string> changed_;
  Ages known_, refused_;     ///< the oldest first
  std::size_t learned_ = 0;  ///< of people_
  /// By domain: who was known and is refused, as known before, since anybody there was taken.
  std::map<std::string, std::vector<Person>> turned_away_;
  std::string lost_domain_;
  std::atomic<bool> has_overflowed_{false};
  std::atomic<std::uint64_t> version_{1};
};

/// True when a refusal of RCPT says that the recipient does not exist, rather than something about the sender or the moment:
/// 550, 551 or 553 with X.1.1, X.1.6, X.1.10, or without an enhanced code (RFC 3463 3.2).
bool says_unknown(std::string_view reply);

}  // namespace holdfast::failover
