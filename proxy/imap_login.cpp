// ImapSession: who it is (RFC 3501 6.2.2, 6.2.3; RFC 4616).
#include <fmt/format.h>
#include <glib.h>

#include "journal/catalog.h"
#include "proxy/imap_session.h"
#include "proxy/log.h"

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
  co_await check_password(std::move(*address), std::move(*password));
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
  gsize size = 0;
  guchar* bytes = g_base64_decode(response.c_str(), &size);
  std::string plain(reinterpret_cast<char*>(bytes), size);
  g_free(bytes);
  std::size_t first = plain.find('\0'), second = first == std::string::npos ? first : plain.find('\0', first + 1);
  if (response == "*" || second == std::string::npos) {
    bad("this is no PLAIN response");
    co_return;
  }
  std::string as = plain.substr(0, first), address = plain.substr(first + 1, second - first - 1);
  if (!as.empty() && journal::normalise(as) != journal::normalise(address)) {
    no("[AUTHORIZATIONFAILED] nobody may log in as somebody else");
    co_return;
  }
  co_await check_password(std::move(address), plain.substr(second + 1));
}

Task<void> ImapSession::check_password(std::string address, std::string password) {
  std::string person = journal::normalise(address);
  std::int64_t wait_us = service_.throttle.wait_us(person, client_.address, journal::now_us());
  if (wait_us > 0) {
    log(LogLevel::warning, "mailbox", {{"person", person}, {"client", client_.address}, {"refused", "too many wrong passwords"}});
    no(fmt::format("[UNAVAILABLE] too many wrong passwords; try again in {} seconds", wait_us / 1000000 + 1));
    co_return;
  }
  auto account = service_.store.account(person);
  if (!account) {
    log(LogLevel::error, "mailbox", {{"person", person}, {"problem", account.error().message}});
    no("[UNAVAILABLE] the mailboxes cannot be read at this moment");
    co_return;
  }
  bool may_enter = *account && (*account)->is_enabled;
  bool is_right = false, is_done = false;
  bool is_asked = service_.passwords.check(may_enter ? (*account)->password_hash : "", password, worker_.loop, [&](bool answer) {
    is_right = answer;
    is_done = true;
    wakeup_.fire();
  });
  if (!is_asked) {
    no("[UNAVAILABLE] too many people log in at this moment; try again");
    co_return;
  }
  while (!is_done) co_await wakeup_.wait(Deadline::max());
  if (!is_right) {
    ++errors_;
    service_.throttle.failed(person, client_.address, journal::now_us());
    log(LogLevel::warning, "mailbox", {{"person", person}, {"client", client_.address}, {"refused", "wrong password"}});
    no("[AUTHENTICATIONFAILED] the address or the password is wrong");
    co_return;
  }
  service_.throttle.succeeded(person, client_.address);
  if (!service_.gate.is_open(*worker_.settings, person, worker_.loop.now())) {
    log(LogLevel::info, "mailbox", {{"person", person}, {"client", client_.address}, {"refused", "closed"}});
    no("[UNAVAILABLE] the emergency mailbox is closed: your usual mail works");
    co_return;
  }
  auto mailbox = service_.mailbox(person);
  if (!mailbox) {
    log(LogLevel::error, "mailbox", {{"person", person}, {"problem", mailbox.error().message}});
    no("[UNAVAILABLE] the mailbox cannot be read at this moment");
    co_return;
  }
  mailbox_ = *mailbox;
  person_ = person;
  state_ = State::authenticated;
  log(LogLevel::info, "mailbox", {{"person", person}, {"client", client_.address}, {"login", stream_.is_tls() ? stream_.tls_description() : "on this machine"}});
  journal::AccessRecord record{journal::now_us(), fmt::format("{} from {}", person, client_.address), "imap login", "emergency mailbox", 0, {}};
  if (settings_->config.journal.access_log) service_.journal.writer().submit_record(journal::RecordKind::access, journal::encode(record));
  ok(fmt::format("[CAPABILITY {}] welcome", capabilities()));
}

}  // namespace holdfast::proxy
