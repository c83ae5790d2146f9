#include "proxy/mailbox_login.h"

#include "journal/canonical_address.h"
#include "proxy/base64.h"
#include "proxy/log.h"

namespace holdfast::proxy {
namespace {

constexpr auto remembered_for = std::chrono::minutes(10);
constexpr std::size_t most_remembered = 100'000;

/// What is known of an attempt before the password is checked.
struct Attempt {
  std::int64_t wait_us = 0;  ///< before the next is allowed
  bool may_enter = false;
  std::string hash;        ///< of the account's password; empty for who may not enter
  journal::Hash digest{};  ///< of the attempt, to be remembered when it is right
  bool is_remembered = false;
};

Result<Attempt> look_at(MailboxService& service, const std::string& person, const std::string& password, const std::string& client) {
  Attempt attempt;
  attempt.wait_us = service.throttle.wait_us(person, client, journal::now_us());
  auto account = service.store.account(person);
  if (!account) return account.error();
  attempt.may_enter = *account && (*account)->is_enabled;
  if (attempt.may_enter) attempt.hash = (*account)->password_hash;
  attempt.digest = service.remembering(attempt.hash + '\0' + password);
  auto known = service.remembered.find(person);
  attempt.is_remembered =
      attempt.may_enter && known != service.remembered.end() && known->second.until > Clock::now() && known->second.digest == attempt.digest;
  return attempt;
}

}  // namespace

std::optional<Credentials> parse_plain(const std::string& base64) {
  std::optional<std::string> plain = decode_base64(base64);
  if (!plain) return std::nullopt;
  std::size_t first = plain->find('\0'), second = first == std::string::npos ? first : plain->find('\0', first + 1);
  if (second == std::string::npos) return std::nullopt;
  std::string as = plain->substr(0, first), address = plain->substr(first + 1, second - first - 1);
  bool is_other = !as.empty() && journal::canonical_address(as) != journal::canonical_address(address);
  return Credentials{is_other ? "" : address, plain->substr(second + 1)};
}

Task<LoginResult> log_in(MailboxService& service, std::shared_ptr<const Settings> settings, Credentials credentials, std::string client,
                         Wakeup& wakeup) {
  LoginResult result;
  result.person = journal::canonical_address(credentials.address);
  auto refuse = [&](const char* why) { log(LogLevel::warning, "mailbox", {{"person", result.person}, {"client", client}, {"refused", why}}); };
  auto attempt = look_at(service, result.person, credentials.password, client);
  std::optional<LoginLine::Place> place;
  if (attempt && attempt->wait_us == 0 && !attempt->is_remembered) {
    place.emplace(service.line, failover::LoginThrottle::network_of(client), wakeup);
    while (!place->is_first()) co_await wakeup.wait(Deadline::max());
    // Those ahead may have been right, or wrong too often.
    attempt = look_at(service, result.person, credentials.password, client);
  }
  if (!attempt) {
    log(LogLevel::error, "mailbox", {{"person", result.person}, {"problem", attempt.error().message}});
    co_return result;
  }
  if (attempt->wait_us > 0) {
    refuse("too many wrong passwords");
    result.verdict = LoginResult::Verdict::wait;
    result.wait_s = attempt->wait_us / 1000000 + 1;
    co_return result;
  }
  bool is_right = attempt->is_remembered;
  if (!is_right) {
    bool is_done = false;
    bool is_asked = service.passwords.check(attempt->hash, credentials.password, wakeup.loop(), [&](bool answer) {
      is_right = answer;
      is_done = true;
      wakeup.fire();
    });
    if (!is_asked) co_return result;
    while (!is_done) co_await wakeup.wait(Deadline::max());
    if (is_right && service.remembered.size() < most_remembered) service.remembered[result.person] = {attempt->digest, Clock::now() + remembered_for};
  }
  if (!is_right) {
    service.throttle.failed(result.person, client, journal::now_us());
    refuse("wrong password");
    result.verdict = LoginResult::Verdict::wrong;
    co_return result;
  }
  service.throttle.succeeded(result.person, client, journal::now_us());
  bool is_open = service.gate.is_open(*settings, result.person, wakeup.loop().now());
  if (!is_open) refuse("closed");
  result.verdict = is_open ? LoginResult::Verdict::welcome : LoginResult::Verdict::closed;
  co_return result;
}

}  // namespace holdfast::proxy
