// ImapSession: who it is (RFC 3501 6.2.2, 6.2.3; RFC 4616).
#include <fmt/format.h>

#include "proxy/imap_session.h"
#include "proxy/log.h"
#include "proxy/mailbox_login.h"

namespace holdfast::proxy {

Task<void> ImapSession::login(ImapText& text) {
  if (!may_log_in_here()) {
    no("[PRIVACYREQUIRED] begin TLS first: passwords do not go over the network in the clear");
    co_return;
  }
  std::optional<std::string> address = text.space() ? text.astring() : std::nullopt;
  std::optional<std::string> password = address && text.space() ? text.astring() : std::nullopt;
  if (!password || !text.at_end()) {
    bad("LOGIN takes an address and a password");
    co_return;
  }
  co_await enter(std::move(*address), std::move(*password));
}

Task<void> ImapSession::authenticate(ImapText& text) {
  if (!may_log_in_here()) {
    no("[PRIVACYREQUIRED] begin TLS first: passwords do not go over the network in the clear");
    co_return;
  }
  if (!text.space() || !text.word("PLAIN")) {
    no("only PLAIN is known here");
    co_return;
  }
  std::string response;
  if (text.space()) {
    response = text.left();
  } else {
    stream_.write("+ \r\n");
    std::string tag = tag_;
    bool has_line = co_await read_command();
    tag_ = tag;
    if (!has_line) co_return;
    response = command_;
  }
  std::optional<Credentials> credentials = parse_plain(response);
  if (!credentials) {
    bad("this is no PLAIN response");
    co_return;
  }
  if (credentials->address.empty()) {
    no("[AUTHORIZATIONFAILED] nobody may log in as somebody else");
    co_return;
  }
  co_await enter(std::move(credentials->address), std::move(credentials->password));
}

Task<void> ImapSession::enter(std::string address, std::string password) {
  Credentials credentials{std::move(address), std::move(password)};
  LoginResult result = co_await log_in(service_, worker_.settings, std::move(credentials), guesser_, wakeup_);
  using Verdict = LoginResult::Verdict;
  if (result.verdict == Verdict::wrong) {
    ++errors_;
    no("[AUTHENTICATIONFAILED] the address or the password is wrong");
  } else if (result.verdict == Verdict::wait) {
    no(fmt::format("[UNAVAILABLE] too many wrong passwords; try again in {} seconds", result.wait_s));
  } else if (result.verdict == Verdict::closed) {
    no("[UNAVAILABLE] the emergency mailbox is closed: your usual mail works");
  }
  bool is_welcome = result.verdict == Verdict::welcome;
  if (!is_welcome && result.verdict != Verdict::unavailable) co_return;
  auto mailbox = is_welcome ? service_.mailbox(result.person) : Error{ErrorCode::unavailable, "too many log in at this moment"};
  if (!mailbox) {
    log(LogLevel::error, "mailbox", {{"person", result.person}, {"problem", mailbox.error().message}});
    no("[UNAVAILABLE] the mailbox cannot be opened at this moment; try again");
    co_return;
  }
  mailbox_ = *mailbox;
  person_ = result.person;
  state_ = State::authenticated;
  log(LogLevel::info, "mailbox",
      {{"person", person_}, {"client", guesser_}, {"login", stream_.is_tls() ? stream_.tls_description() : "on this machine"}});
  journal::AccessRecord record{journal::now_us(), fmt::format("{} from {}", person_, guesser_), "imap login", "emergency mailbox", 0, {}};
  if (settings_->config.journal.access_log) service_.journal.writer().submit_record(journal::RecordKind::access, journal::encode(record));
  ok(fmt::format("[CAPABILITY {}] welcome", capabilities()));
}

}  // namespace holdfast::proxy
