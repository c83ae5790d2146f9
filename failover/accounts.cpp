#include "failover/accounts.h"

#include <sodium.h>

#include <algorithm>
#include <cstdlib>

#include "failover/client_network.h"

namespace holdfast::failover {
namespace {

constexpr std::int64_t second_us = 1'000'000;
/// Mistakes that cost nothing: a person's own, those of an office behind one address, and those of the whole world at one account.
constexpr unsigned free_tries_pair = 5, free_tries_network = 30, free_tries_account = 50;
/// The world may keep a person out only so long who comes from somewhere new.
constexpr std::int64_t longest_wait_us = 15 * 60 * second_us, longest_wait_account_us = 60 * second_us;
constexpr std::int64_t forgotten_after_us = 60 * 60 * second_us;
constexpr std::size_t most_records = 100'000;

std::string pair_of(std::string_view account, const std::string& network) { return std::string(account) + ' ' + network; }

void start_sodium() {
  if (::sodium_init() < 0) std::abort();  // no random source
}

}  // namespace

std::string hash_password(std::string_view password) {
  start_sodium();
  char hash[crypto_pwhash_STRBYTES];
  if (::crypto_pwhash_argon2id_str(hash, password.data(), password.size(), crypto_pwhash_OPSLIMIT_INTERACTIVE, crypto_pwhash_MEMLIMIT_INTERACTIVE) !=
      0)
    std::abort();  // no memory
  return hash;
}

bool is_password(const std::string& hash, std::string_view password) {
  start_sodium();
  static const std::string nobody = hash_password("nobody has this password");
  bool is_right = ::crypto_pwhash_str_verify((hash.empty() ? nobody : hash).c_str(), password.data(), password.size()) == 0;
  return is_right && !hash.empty();
}

std::string LoginThrottle::network_of(std::string_view address) {
  if (address.find(':') == std::string_view::npos) return std::string(address.substr(0, address.rfind('.')));
  return client_network(std::string(address));
}

/// Doubles with each failure beyond those that are free.
std::int64_t LoginThrottle::wait_us(const Records& records, const std::string& key, unsigned free_tries, std::int64_t longest_us,
                                    std::int64_t now_us) {
  auto found = records.find(key);
  if (found == records.end() || found->second.failures < free_tries) return 0;
  std::int64_t wait = second_us << std::min(found->second.failures - free_tries, 20U);
  wait = std::min(wait, longest_us);
  return std::clamp<std::int64_t>(found->second.last_us + wait - now_us, 0, wait);  // never longer, should the clock have been set back
}

std::int64_t LoginThrottle::wait_us(std::string_view account, std::string_view client, std::int64_t now_us) const {
  const std::string network = network_of(client), pair = pair_of(account, network);
  std::int64_t wait = wait_us(pairs_, pair, free_tries_pair, longest_wait_us, now_us);
  auto known = pairs_.find(pair);
  bool is_known = known != pairs_.end() && known->second.success_us > 0;
  if (is_known) return wait;
  wait = std::max(wait, wait_us(networks_, network, free_tries_network, longest_wait_us, now_us));
  return std::max(wait, wait_us(accounts_, std::string(account), free_tries_account, longest_wait_account_us, now_us));
}

void LoginThrottle::failed(std::string_view account, std::string_view client, std::int64_t now_us) {
  forget_old(now_us);
  const std::string network = network_of(client);
  for (Record* record : {&accounts_[std::string(account)], &networks_[network], &pairs_[pair_of(account, network)]}) {
    bool is_long_ago = now_us - record->last_us > forgotten_after_us;
    record->failures = is_long_ago ? 1 : record->failures + 1;
    record->last_us = now_us;
  }
}

/// An office where people get in, and some mistype, is no guesser.
void LoginThrottle::succeeded(std::string_view account, std::string_view client, std::int64_t now_us) {
  forget_old(now_us);
  const std::string network = network_of(client);
  if (auto found = networks_.find(network); found != networks_.end()) found->second.failures /= 2;
  pairs_[pair_of(account, network)] = {0, 0, now_us};
}

void LoginThrottle::forget_old(std::int64_t now_us) {
  for (Records* records : {&accounts_, &networks_, &pairs_}) {
    if (records->size() < most_records) continue;
    std::erase_if(*records, [&](const auto& one) { return now_us - std::max(one.second.last_us, one.second.success_us) > forgotten_after_us; });
    // A flood of names that do not exist: those who got in are kept.
    if (records->size() >= most_records) std::erase_if(*records, [](const auto& one) { return one.second.success_us == 0; });
    if (records->size() >= most_records) records->clear();
  }
}

}  // namespace holdfast::failover
