// Logging in to an emergency mailbox, for IMAP and submission alike: passwords, throttling, the gate.
#pragma once

#include <optional>
#include <string>

#include "proxy/imap_session.h"

namespace holdfast::proxy {

struct Credentials {
  std::string address, password;
};
/// A PLAIN response in base64 (RFC 4616). Nothing when it is malformed; an empty address when somebody wants
/// to log in as somebody else.
std::optional<Credentials> parse_plain(const std::string& base64);

struct LoginResult {
  enum class Verdict { welcome, wrong, closed, wait, unavailable };
  Verdict verdict = Verdict::unavailable;
  std::string person;       ///< the account's address
  std::int64_t wait_s = 0;  ///< for Verdict::wait
};

/// Checks a password on the loop of the service. Logs what was refused.
Task<LoginResult> log_in(MailboxService& service, std::shared_ptr<const Settings> settings, Credentials credentials, std::string client,
                         Wakeup& wakeup);

}  // namespace holdfast::proxy
