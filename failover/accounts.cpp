#include "failover/accounts.h"

#include <sodium.h>

#include <algorithm>
#include <cstdlib>

namespace holdfast::failover {
namespace {

constexpr std::int64_t second_us = 1'000'000;
/// Mistakes that cost nothing: a person's own, and those of an office behind one address.
constexpr unsigned free_tries_account = 5, free_tries_network = 30;
constexpr std::int64_t longest_wait_us = 15 * 60 * second_us;
constexpr std::int64_t forgotten_after_us = 60 * 60 * second_us;
constexpr std::size_t most_records = 100'000;

void start_sodium() {
  if (::sodium_init() < 0) std::abort();  // no random source
}

}  // namespace

std::string hash_password(std::string_view password) {
  start_sodium();
  char hash[crypto_pwhash_STRBYTES];
  if (::crypto_pwhash_argon2id_str(hash, password.data(), password.size(), crypto_pwhash_OPSLIMIT_INTERACTIVE,
                                   crypto_pwhash_MEMLIMIT_INTERACTIVE) != 0)
    std::abort();  // no memory
  return hash;
}

bool is_password(const std::string& hash, std::string_view password) {
  start_sodium();
  static const std::string nobody = hash_password("nobody has this password");
  bool is_right = ::crypto_pwhash_str_verify((hash.empty() ? nobody : hash).c_str(), password.data(),
                                             password.size()) == 0;
  return is_right && !hash.empty();
}

std::string LoginThrottle::network_of(std::string_view address) {
  if (address.find(':') == std::string_view::npos) return std::string(address.substr(0, address.rfind('.')));
  std::size_t end = 0;
  for (int colons = 0; end < address.size() && colons < 4; ++end) colons += address[end] == ':';
  return std::string(address.substr(0, end));
}

/// Doubles with each failure beyond those that are free.
std::int64_t LoginThrottle::wait_us(const Record& record, unsigned free_tries, std::int64_t now_us) const {
  if (record.failures < free_tries) return 0;
  std::int64_t wait = second_us << std::min(record.failures - free_tries, 20U);
  return std::max<std::int64_t>(0, record.last_us + std::min(wait, longest_wait_us) - now_us);
}

std::int64_t LoginThrottle::wait_us(std::string_view account, std::string_view client, std::int64_t now_us) {
  forget_old(now_us);
  std::int64_t wait = 0;
  if (auto found = accounts_.find(std::string(account)); found != accounts_.end())
    wait = wait_us(found->second, free_tries_account, now_us);
  if (auto found = networks_.find(network_of(client)); found != networks_.end())
    wait = std::max(wait, wait_us(found->second, free_tries_network, now_us));
  return wait;
}

void LoginThrottle::failed(std::string_view account, std::string_view client, std::int64_t now_us) {
  for (Record* record : {&accounts_[std::string(account)], &networks_[network_of(client)]}) {
    ++record->failures;
    record->last_us = now_us;
  }
}

void LoginThrottle::succeeded(std::string_view account, std::string_view) {
  accounts_.erase(std::string(account));
}

void LoginThrottle::forget_old(std::int64_t now_us) {
  if (accounts_.size() + networks_.size() < most_records) return;
  for (auto* records : {&accounts_, &networks_}) {
    std::erase_if(*records,
                  [&](const auto& one) { return now_us - one.second.last_us > forgotten_after_us; });
    if (records->size() > most_records) records->clear();
  }
}

}  // namespace holdfast::failover
