#include "proxy/imap_session.h"

#include <fmt/format.h>

#include <algorithm>

#include "journal/record.h"
#include "proxy/log.h"
#include "proxy/submission_session.h"

namespace holdfast::proxy {
namespace {

constexpr unsigned most_errors = 20;
/// After so long in one command it is the others' turn.
constexpr auto turn = std::chrono::milliseconds(5);

}  // namespace

Result<std::shared_ptr<failover::Mailbox>> MailboxService::mailbox(const std::string& person) {
  if (auto open = mailboxes[person].lock()) return open;
  auto opened = std::make_shared<failover::Mailbox>(store, journal, directory, person);
  if (Status loaded = opened->open(); !loaded) return loaded.error();
  mailboxes[person] = opened;
  std::erase_if(mailboxes, [](const auto& one) { return one.second.expired(); });
  return opened;
}

Status MailboxService::forget(const std::vector<journal::RecordId>& entries) {
  for (auto& [person, mailbox] : mailboxes)
    if (auto open = mailbox.lock()) open->forget({entries.begin(), entries.end()});
  return store.forget(entries);
}

void MailboxService::shut_out(const std::string& person) {
  remembered.erase(person);
  for (ImapSession* session : sessions)
    if (session->person() == person) session->stop("your account was changed; log in again");
  for (SubmissionSession* session : submissions) session->shut_out(person);
}

Status MailboxService::remove(const std::string& person) {
  if (auto open = mailboxes[person].lock()) open->close();
  mailboxes.erase(person);
  return store.remove(person);
}

std::uint64_t MailboxService::in_memory_of(const std::string& person) const {
  std::uint64_t bytes = 0;
  for (const ImapSession* session : sessions)
    if (session->person() == person) bytes += session->reserved();
  return bytes;
}

void MailboxService::stop() {
  for (ImapSession* session : sessions) session->stop("Holdfast is shutting down");
  for (SubmissionSession* session : submissions) session->look();
}

void MailboxService::look(const std::shared_ptr<const Settings>& settings, Deadline now) {
  bool may_be_over = gate.look(settings, now);
  std::erase_if(remembered, [&](const auto& one) { return one.second.until <= now; });
  const Seen seen{journal.last_mail(), journal.indexed(), store.changes()};
  bool has_news = std::exchange(seen_, seen) != seen;
  if (!may_be_over && !has_news) return;
  for (ImapSession* session : sessions) session->look();
}

ImapSession::ImapSession(Worker& worker, MailboxService& service, const ListenerConfig& listener, FileDescriptor socket, const SocketAddress& peer,
                         std::unique_ptr<ConnectionCounts::Place> place)
    : worker_(worker),
      service_(service),
      settings_(worker.settings),
      listener_(listener),
      wakeup_(worker.loop),
      stream_(std::move(socket), wakeup_),
      client_(to_endpoint(peer)),
      guesser_(client_.address),
      place_(std::move(place)) {
  service_.sessions.insert(this);
}

ImapSession::~ImapSession() {
  release();
  record_reading();
  service_.sessions.erase(this);
  worker_.shared.connections.leave();
}

void ImapSession::stop(const std::string& why) {
  if (stop_why_.empty()) stop_why_ = why;
  wakeup_.fire();
}

Task<void> ImapSession::run(std::unique_ptr<ImapSession> session) {
  ImapSession& self = *session;
  bool is_secure = true;
  if (self.listener_.tls == ListenerTls::implicit) is_secure = co_await self.start_tls();
  if (!is_secure) co_return;
  self.untagged(fmt::format("OK [CAPABILITY {}] {} Holdfast is ready", self.capabilities(), self.settings_->config.hostname));
  while (self.state_ != State::logout) {
    bool has_command = co_await self.read_command();
    if (!has_command) break;
    self.turn_end_ = Clock::now() + turn;
    co_await self.serve_command();
    if (self.errors_ >= most_errors) {
      self.untagged("BYE too many errors");
      break;
    }
  }
  if (!self.stop_why_.empty() && self.state_ != State::logout) self.untagged("BYE " + self.stop_why_);
  self.stop_why_.clear();
  co_await self.drain_output(0);
  self.stream_.close();
}

Task<bool> ImapSession::start_tls() {
  SSL* ssl = settings_->tls->new_server();
  if (!ssl) co_return false;
  std::string failure = co_await stream_.handshake(ssl, true, worker_.loop.now() + longest_early_silence);
  if (failure.empty()) co_return true;
  log(LogLevel::info, "tls", {{"client", to_string(client_)}, {"problem", failure}});
  co_return false;
}

std::string ImapSession::capabilities() const {
  std::string all = "IMAP4rev1 LITERAL+ SASL-IR ID ENABLE";
  if (is_early()) {
    if (listener_.tls == ListenerTls::starttls && !stream_.is_tls()) all += " STARTTLS";
    return all + (may_log_in_here() ? " AUTH=PLAIN" : " LOGINDISABLED");
  }
  return all +
         " NAMESPACE IDLE UNSELECT UIDPLUS MOVE CHILDREN SPECIAL-USE LIST-EXTENDED LIST-STATUS ESEARCH "
         "WITHIN SORT THREAD=REFERENCES "
         "THREAD=ORDEREDSUBJECT CONDSTORE";
}

/// Passwords go over TLS, or stay on this machine.
bool ImapSession::may_log_in_here() const { return stream_.is_tls() || is_loopback(client_.address); }

void ImapSession::untagged(std::string_view text) {
  stream_.write("* ");
  stream_.write(text);
  stream_.write("\r\n");
}

void ImapSession::reply(std::string_view status, std::string_view text) { stream_.write(fmt::format("{} {} {}\r\n", tag_, status, text)); }

void ImapSession::bad(std::string_view text) {
  ++errors_;
  reply("BAD", text);
}

/// RFC 2971. A webmail on this machine says for whom it speaks: its users are not to be taken for one guesser.
bool ImapSession::identify(ImapText& text) {
  if (!text.space()) return false;
  if (text.word("NIL")) return text.at_end();
  if (!text.take('(')) return false;
  bool is_from_here = is_loopback(client_.address);
  while (!text.is_next(')')) {
    std::optional<std::string> name = text.string();
    if (!name || !text.space()) return false;
    std::optional<std::string> value = text.word("NIL") ? std::string() : text.string();
    if (!value) return false;
    bool is_address = is_same_name(*name, "x-originating-ip") && to_socket_address({*value, 0}).has_value();
    if (is_address && is_from_here && is_early()) guesser_ = *value;
    if (!text.space()) break;
  }
  return text.take(')') && text.at_end();
}

/// Waits until no more than so much is unsent. False when the connection is over.
Task<bool> ImapSession::drain_output(std::size_t most) {
  stream_.flush();
  Deadline patience = worker_.loop.now() + std::chrono::minutes(2);
  while (stream_.unsent() > most && !stream_.is_broken() && stop_why_.empty()) {
    bool in_time = co_await wakeup_.wait(patience);
    if (!in_time) co_return false;
  }
  co_return !stream_.is_broken();
}

/// Lets others have their turn when this one's is over, and waits while the client does not read. False when
/// the connection is over.
Task<bool> ImapSession::breathe() {
  if (stream_.is_flooded()) {
    bool goes_on = co_await drain_output(Stream::flood_mark / 2);
    if (!goes_on) co_return false;
  }
  if (Clock::now() >= turn_end_) {
    bool is_due = false;
    worker_.loop.post([this, &is_due] {
      is_due = true;
      wakeup_.fire();
    });
    while (!is_due) co_await wakeup_.wait(Deadline::max());
    turn_end_ = Clock::now() + turn;
  }
  co_return !stream_.is_broken() && stop_why_.empty();
}

bool ImapSession::may_go_on() {
  if (!stop_why_.empty()) return false;
  if (is_early() || service_.gate.is_open(*worker_.settings, person_, worker_.loop.now())) return true;
  stop_why_ = "the emergency mailbox is closed: your usual mail works again";
  log(LogLevel::info, "mailbox", {{"person", person_}, {"closed", "the primary is back"}});
  return false;
}

/// Looks for news. A journal that cannot be read now shows what was known.
void ImapSession::refresh() {
  if (!mailbox_) return;
  Status refreshed = mailbox_->refresh();
  if (!refreshed) log(LogLevel::error, "mailbox", {{"person", person_}, {"problem", refreshed.error().message}});
}

Task<void> ImapSession::serve_command() {
  ImapText text(command_);
  std::optional<std::string> tag = text.atom();
  tag_ = tag.value_or("*");
  std::optional<std::string> word = tag && tag->find('+') == std::string::npos && text.space() ? text.atom() : std::nullopt;
  if (!word) {
    bad("this is no IMAP command");
    co_return;
  }
  auto is = [&](std::string_view name) { return is_same_name(*word, name); };
  if (is("CAPABILITY")) {
    untagged("CAPABILITY " + capabilities());
    ok("done");
  } else if (is("NOOP") || is("CHECK")) {
    if (mailbox_) co_await catch_up();
    show_news(true);
    ok("done");
  } else if (is("LOGOUT")) {
    untagged("BYE see you");
    ok("logged out");
    state_ = State::logout;
  } else if (is("ID")) {
    if (!identify(text)) {
      bad("ID takes NIL or a list of names and values");
      co_return;
    }
    untagged("ID (\"name\" \"Holdfast\")");
    ok("done");
  } else if (is_early()) {
    if (is("STARTTLS") && listener_.tls == ListenerTls::starttls && !stream_.is_tls()) {
      // RFC 3501 6.2.1: nothing may follow in the clear that would count as said under TLS.
      if (!stream_.input().empty()) {
        stop_why_ = "something was sent before TLS began";
        state_ = State::not_authenticated;
        untagged("BYE something was sent before TLS began");
        state_ = State::logout;
        co_return;
      }
      ok("begin TLS now");
      stream_.flush();
      bool is_secure = co_await start_tls();
      if (!is_secure) state_ = State::logout;
    } else if (is("LOGIN")) {
      co_await login(text);
    } else if (is("AUTHENTICATE")) {
      co_await authenticate(text);
    } else if (is("STARTTLS")) {
      bad(stream_.is_tls() ? "TLS is active already" : "TLS is not offered here");
    } else {
      bad("log in first");
    }
  } else {
    co_await serve_logged_in(*word, text);
  }
}

Task<void> ImapSession::serve_logged_in(std::string word, ImapText text) {
  auto is = [&](std::string_view name) { return is_same_name(word, name); };
  bool by_uid = is("UID");
  if (by_uid) {
    std::optional<std::string> next = text.space() ? text.atom() : std::nullopt;
    word = next.value_or("");
    bool has_uid_form = is("FETCH") || is("STORE") || is("COPY") || is("MOVE") || is("SEARCH") || is("SORT") || is("THREAD") || is("EXPUNGE");
    if (!has_uid_form) {
      bad("this is no IMAP command");
      co_return;
    }
  }
  // Other commands look at the folder as the client knows it: nothing may vanish from it before the answer.
  refresh();
  if (is("SELECT") || is("EXAMINE") || is("STATUS")) co_await catch_up();
  if (is("NAMESPACE")) {
    untagged("NAMESPACE ((\"\" \"/\")) NIL NIL");
    ok("done");
  } else if (is("ENABLE"))
    enable(text);
  else if (is("LIST"))
    list(text, false);
  else if (is("LSUB"))
    list(text, true);
  else if (is("SELECT"))
    select(text, false);
  else if (is("EXAMINE"))
    select(text, true);
  else if (is("STATUS"))
    status(text);
  else if (is("CREATE"))
    create(text);
  else if (is("DELETE"))
    remove(text);
  else if (is("RENAME"))
    rename(text);
  else if (is("SUBSCRIBE"))
    subscribe(text, true);
  else if (is("UNSUBSCRIBE"))
    subscribe(text, false);
  else if (is("APPEND"))
    append(text);
  else if (is("IDLE"))
    co_await idle();
  else if (state_ != State::selected)
    bad("select a folder first");
  else if (is("CLOSE"))
    close(true);
  else if (is("UNSELECT"))
    close(false);
  else if (is("FETCH"))
    co_await fetch(text, by_uid);
  else if (is("STORE"))
    co_await store(text, by_uid);
  else if (is("SEARCH"))
    co_await search(text, by_uid);
  else if (is("SORT"))
    co_await sort(text, by_uid);
  else if (is("THREAD"))
    co_await thread(text, by_uid);
  else if (is("COPY"))
    copy(text, by_uid, false);
  else if (is("MOVE"))
    copy(text, by_uid, true);
  else if (is("EXPUNGE"))
    expunge(text, by_uid);
  else
    bad("this is no IMAP command");
}

/// RFC 2177: tells what is new as it comes, until the client says DONE.
Task<void> ImapSession::idle() {
  stream_.write("+ waiting for news\r\n");
  Deadline deadline = worker_.loop.now() + longest_silence;
  for (;;) {
    if (service_.journal.indexed() < service_.journal.last_mail()) service_.journal.hurry_index();
    refresh();
    show_news(true);
    stream_.flush();
    if (std::size_t end = stream_.input().find('\n'); end != std::string_view::npos) {
      std::string_view line = stream_.input().substr(0, end);
      if (line.ends_with('\r')) line.remove_suffix(1);
      bool is_done = is_same_name(line, "DONE");
      stream_.consume(end + 1);
      is_done ? ok("done") : bad("DONE was expected");
      co_return;
    }
    bool is_over = !may_go_on() || !stream_.is_alive() || stream_.input().size() > longest_early_line;
    if (is_over) co_return;
    bool in_time = co_await wakeup_.wait(deadline);
    if (!in_time) stop_why_ = "you were away for long";
  }
}

/// Who looks for news is to see all that has arrived by now: waits for the index, which follows the log at some distance.
Task<void> ImapSession::catch_up() {
  const journal::RecordId last = service_.journal.last_mail();
  constexpr auto patience = std::chrono::milliseconds(500), pace = std::chrono::milliseconds(2);
  Deadline until = worker_.loop.now() + longest_silence;
  if (service_.journal.indexed() < last) service_.journal.hurry_index();
  while (service_.journal.indexed() < last && Clock::now() < until && stop_why_.empty()) co_await wakeup_.wait(Clock::now() + pace);
  refresh();
}

/// What was read, on record.
void ImapSession::record_reading() {
  if (read_.empty()) return;
  journal::AccessRecord record{journal::now_us(), fmt::format("{} from {}", person_, guesser_), "imap fetch", "emergency mailbox", read_.size(), {}};
  for (journal::RecordId id : read_) {
    if (record.examples.size() >= 100) break;
    record.examples.push_back(id);
  }
  service_.journal.writer().submit_record(journal::RecordKind::access, journal::encode(record));
  read_.clear();
}

}  // namespace holdfast::proxy
