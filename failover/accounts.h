// Passwords of emergency accounts, and what guessing them costs.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>

namespace holdfast::failover {

/// argon2id with libsodium's parameters for interactive logins (64 MiB, about 0.1 s). Thread-safe.
std::string hash_password(std::string_view password);
/// The same cost whether the hash is empty or not, so that nobody learns who has an account. Thread-safe.
bool is_password(const std::string& hash, std::string_view password);

/// Slows down guessing without keeping out those who are known: what counts is what this network has tried at this account; and for a
/// network from which nobody has got into the account yet, also what the network has tried elsewhere, and what others have tried at the
/// account. One thread at a time.
class LoginThrottle {
 public:
  /// Microseconds until the next try is allowed; 0: now.
  std::int64_t wait_us(std::string_view account, std::string_view client, std::int64_t now_us) const;
  void failed(std::string_view account, std::string_view client, std::int64_t now_us);
  void succeeded(std::string_view account, std::string_view client, std::int64_t now_us);

  /// The network that counts as one guesser: an IPv4 address's /24, an IPv6 address's /64.
  static std::string network_of(std::string_view address);

 private:
  struct Record {
    unsigned failures = 0;
    std::int64_t last_us = 0;  ///< of the last failure
    std::int64_t success_us = 0;
  };
  using Records = std::map<std::string, Record>;
  static std::int64_t wait_us(const Records& records, const std::string& key, unsigned free_tries, std::int64_t longest_us, std::int64_t now_us);
  void forget_old(std::int64_t now_us);

  Records accounts_, networks_, pairs_;  ///< a pair: an account as seen from a network
};

}  // namespace holdfast::failover
