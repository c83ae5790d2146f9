#include "proxy/session.h"

#include <fmt/format.h>

#include <algorithm>

#include "proxy/address.h"
#include "proxy/log.h"
#include "proxy/session_content.h"

namespace holdfast::proxy {
namespace {

Duration time_for(Verb verb, const TimeoutsConfig& timeouts) {
  switch (verb) {
    case Verb::mail: return timeouts.mail;
    case Verb::rcpt: return timeouts.rcpt;
    case Verb::data: return timeouts.data_start;
    case Verb::bdat: return timeouts.data_block;
    default: return timeouts.command;
  }
}

}  // namespace

Session::Session(Worker& worker, const ListenerConfig& listener, FileDescriptor socket, const SocketAddress& peer, const SocketAddress& own)
    : worker_(worker),
      settings_(worker.settings),
      listener_(listener),
      id_(fmt::format("{:x}", worker.shared.next_session.fetch_add(1, std::memory_order_relaxed))),
      wakeup_(worker.loop),
      client_(std::move(socket), wakeup_),
      facts_{to_endpoint(peer), to_endpoint(own)} {
  use_route(listener_.route.empty() ? 0 : find_route(settings_->config, listener_.route).value_or(0));
  worker_.sessions[this] = 0;
}

Session::~Session() {
  worker_.sessions.erase(this);
  worker_.shared.connections.leave();
}

Task<void> Session::run(std::unique_ptr<Session> session) {
  Session& self = *session;
  bool is_greeted = co_await self.greet();
  if (is_greeted) co_await self.converse();
  self.flush();
  co_await self.take_leave();
  if (self.upstream_ && self.has_quiet()) self.worker_.pool.give_back(self.settings_, self.route_, std::move(self.upstream_));
  log(LogLevel::debug, "disconnect", {{"session", self.id_}, {"client", to_string(self.facts_.client)}});
}

/// The last reply may still be on its way out. And a client that was refused may still be sending: closing with bytes
/// unread would reset the connection, and the client might never see why.
Task<void> Session::take_leave() {
  Deadline patience = after(std::chrono::seconds(10));
  bool goes_on = true;
  while (goes_on && client_.unsent() > 0 && !client_.is_broken()) goes_on = co_await wakeup_.wait(patience);
  if (!is_refused_) co_return;
  client_.end_writing();
  patience = after(std::chrono::seconds(2));
  while (goes_on && client_.is_alive()) {
    client_.consume(client_.input().size());
    goes_on = co_await wakeup_.wait(patience);
  }
}

Task<void> Session::converse() {
  Deadline client_due = after(limits().timeouts.command);
  Deadline reply_due = client_due;
  for (;;) {
    follow_state();
    bool has_answered = take_replies();
    bool has_asked = take_commands();
    if (has_answered || has_asked) {
      if (has_asked) client_due = after(limits().timeouts.command);
      if (!awaited_.empty()) reply_due = after(patience_with(awaited_.front()));
      continue;
    }
    flush();
    is_over_ = is_over_ || (is_refused_ && awaited_.empty());
    if (is_over_) co_return;

    bool is_interlude_due = awaited_.empty() && mode_ != Mode::commands && mode_ != Mode::auth;
    if (is_interlude_due) {
      Next next = co_await interlude();
      if (next == Next::close) co_return;
      client_due = after(limits().timeouts.command);
      continue;
    }

    notice_loss();
    bool has_line = client_.input().find('\n') != std::string_view::npos;
    // A series of chunks whose primary went away goes on without one; its end decides.
    bool is_missed = !upstream_ && !is_holding_ && !content_ && (has_line || !awaited_.empty());
    if (!lost_why_.empty() || is_missed) {
      bool is_served = co_await find_another();
      if (is_served) reply_due = after(awaited_.empty() ? limits().timeouts.command : patience_with(awaited_.front()));
      continue;
    }
    if (client_.is_broken() || (client_.is_ended() && awaited_.empty() && !has_line)) co_return;
    if (worker_.is_draining && has_quiet()) {
      say_goodbye(421, fmt::format("4.3.2 {} Service is shutting down, try again later", hostname()));
      continue;
    }

    bool in_time = co_await wakeup_.wait(awaited_.empty() ? client_due : reply_due);
    if (!in_time) lose_patience();
  }
}

/// Somebody has been silent for too long.
void Session::lose_patience() {
  if (awaited_.empty())
    say_goodbye(421, fmt::format("4.4.2 {} Error: timeout exceeded", hostname()));
  else if (comes_second(awaited_.front()))
    greet_elsewhere(true);
  else
    lose_upstream("it did not answer in time");
}

/// A primary, or Holdfast in its place, for a client that has none now. False when the client was turned away.
Task<bool> Session::find_another() {
  Reached reached = co_await reach_primary(std::exchange(lost_why_, std::string()));
  bool is_served = reached == Reached::live || reached == Reached::holding;
  if (!is_served) turn_away(reached);
  co_return is_served;
}

/// What comes between commands: content, TLS, another route; or after them.
Task<Session::Next> Session::interlude() {
  Mode mode = std::exchange(mode_, Mode::commands);
  is_synchronising_ = false;
  Next next = Next::go_on;
  if (mode == Mode::data)
    next = co_await relay_data();
  else if (mode == Mode::bdat)
    next = co_await relay_bdat(*bdat_, std::move(line_));
  else if (mode == Mode::starttls)
    next = co_await client_starttls();
  else if (mode == Mode::switching)
    next = co_await switch_route();
  else
    next = co_await quit();
  co_return next;
}

/// Looks whether the primary has gone.
void Session::notice_loss() {
  if (!upstream_) return;
  const char* const closed = "it closed the connection";
  if (!upstream_->stream.is_alive()) {
    // Nobody was waiting for it (a client that is silent for long, perhaps), or it was in the pool and ended of age just as this client
    // was given it.
    if (owes_nothing() || upstream_->was_reused)
      upstream_.reset();
    else if (content_ && awaited_.empty())
      lose_upstream_in_chunks(closed);
    else if (moves_no_mail(awaited_.front()))
      answer_for_primary(closed);
    else
      lose_upstream(closed);
  }
  if (is_primary_out_ && upstream_ && !awaited_.empty()) lose_upstream("the breaker has tripped");
}

Duration Session::patience_with(const Awaited& awaited) const {
  if (!comes_second(awaited)) return time_for(awaited.verb, limits().timeouts);
  return worker_.pool.habits().patience_with_greeting(upstream_->room->name);
}

/// Gives the client what the primary has answered. True when there was anything.
bool Session::take_replies() {
  bool has_moved = false;
  for (;;) {
    if (!awaited_.empty() && !awaited_.front().own_reply.empty()) {
      client_.write(awaited_.front().own_reply);
      awaited_.pop_front();
      has_moved = true;
      continue;
    }
    if (is_over_ || client_.is_flooded() || !lost_why_.empty()) return has_moved;
    if (is_holding_) {
      if (awaited_.empty()) return has_moved;
      const Awaited& asked = awaited_.front();
      Reply reply = stand_in().answer({asked.verb, asked.address, asked.params, asked.is_malformed}, transaction_);
      take_reply(reply);
      has_moved = true;
      continue;
    }
    if (!upstream_ || upstream_->stream.input().empty()) return has_moved;
    Reply reply;
    std::size_t consumed = 0;
    ReplyParser::State state = ReplyParser().parse(upstream_->stream.input(), reply, consumed);
    if (state == ReplyParser::State::incomplete) return has_moved;
    if (state == ReplyParser::State::complete) {
      upstream_->stream.consume(consumed);
      if (!awaited_.empty()) {
        take_reply(reply);
        if (has_unsent_) send_unsent();
        has_moved = true;
        continue;
      }
      // A farewell to a connection on which nothing is going on concerns nobody: mostly, its client was silent for too long.
      bool is_farewell = reply.code == 421 && owes_nothing();
      if (is_farewell) {
        upstream_.reset();
        return has_moved;
      }
    }
    lose_upstream("it sent something that is no reply to anything");
    return has_moved;
  }
}

/// Why this cannot be the reply to a command; empty when it can.
std::string Session::nonsense_in(const Reply& reply, const Awaited& awaited) {
  bool is_intermediate = reply.is_intermediate();
  if (awaited.verb == Verb::data && (is_intermediate || reply.is_positive()) && reply.code != 354)
    return "it answered DATA with neither 354 nor a refusal";
  if (is_intermediate && awaited.verb != Verb::data && awaited.verb != Verb::auth) return "it sent an intermediate reply where none belongs";
  return "";
}

/// The primary understands what to Holdfast is no command: a MAIL or RCPT of another form, or a dialogue of its own. What it has in
/// mind now, nobody here knows; a fresh connection knows nothing of it. A client can bring this about at will: it is no trouble of the primary's.
bool Session::is_misunderstood(const Awaited& awaited, const Reply& reply) {
  return (awaited.is_malformed && reply.is_positive()) || (awaited.verb == Verb::unknown && reply.is_intermediate());
}

/// Talk beside the transactions, to which some primaries hang up on the client.
bool Session::moves_no_mail(const Awaited& awaited) {
  switch (awaited.verb) {
    case Verb::vrfy:
    case Verb::expn:
    case Verb::help:
    case Verb::etrn:
    case Verb::unknown: return true;
    default: return awaited.is_malformed;
  }
}

/// The primary's connection is of no use any more, and what it should have answered moves no mail: the client need not know, and the
/// next command finds a fresh one.
void Session::answer_for_primary(const std::string& why) {
  if (content_)
    lose_upstream_in_chunks(why);
  else
    upstream_.reset();
  Awaited& asked = awaited_.front();
  Reply reply = stand_in().answer({asked.verb, "", "", asked.is_malformed}, transaction_);
  asked.own_reply = reply.wire;
  if (awaited_.size() == 1 && mode_ == Mode::commands) is_synchronising_ = false;
  if (!reply.is_positive()) count_error();
}

void Session::take_reply(Reply& reply) {
  if (is_misunderstood(awaited_.front(), reply)) return answer_for_primary("it took what is no command");
  std::string nonsense = nonsense_in(reply, awaited_.front());
  // A primary that says 421 is going away: another one, or a fresh connection, may do better. Said twice, or when it is about
  // this client (4.7) and no other that was there before, it is the primary's word.
  bool is_farewell = reply.code == 421 && !is_holding_;
  bool is_about_client = reply.is_about_client() || (upstream_ && !upstream_->may_be_reused && reply.has_had_enough());
  bool is_meant = is_farewell && (farewells_++ > 0 || (is_about_client && !(upstream_ && upstream_->is_shared)));
  if (is_farewell && !is_meant) nonsense = "it says " + reply.summary();
  // 221 to anything but QUIT, which does not come by here: it hangs up on this client, for what the client has said.
  bool is_hanging_up = reply.code == 221;
  if (!nonsense.empty() && !is_hanging_up) return moves_no_mail(awaited_.front()) ? answer_for_primary(nonsense) : lose_upstream(nonsense);
  Awaited awaited = std::move(awaited_.front());
  awaited_.pop_front();
  if (is_meant || is_hanging_up) {
    if (is_meant && !is_about_client && !moves_no_mail(awaited)) worker_.shared.control.failed(*board_, "it says " + reply.summary());
    client_.write(reply.wire);
    is_over_ = true;
    return drop_upstream();
  }
  trouble_since_.reset();
  farewells_ = 0;
  if (upstream_) {
    upstream_->was_reused = false;  // it lives
    if (!reply.is_positive() && !reply.is_intermediate()) upstream_->may_be_reused = false;
    if (reply.has_status("4.3.")) worker_.shared.control.faltered(*board_, reply.summary());
  }
  if (!reply.is_positive() && comes_second(awaited)) {
    awaited_.push_front(std::move(awaited));
    return greet_elsewhere(false);
  }
  // A command after which the client must wait is always the last one out.
  if (awaited_.empty() && (mode_ == Mode::commands || mode_ == Mode::auth)) is_synchronising_ = false;
  follow(awaited, reply);
  if (awaited.verb == Verb::ehlo && reply.is_positive()) return take_ehlo_reply(reply);
  client_.write(reply.wire);
}

/// Keeps what a command and its reply mean for the session.
void Session::follow(Awaited& awaited, const Reply& reply) {
  switch (awaited.verb) {
    case Verb::ehlo:
    case Verb::helo:
      if (!reply.is_positive()) break;
      end_transaction();
      helo_line_ = awaited.line;
      helo_ = awaited.address;
      if (upstream_) learn_greetings();
      forget_capabilities();
      break;
    case Verb::mail:
      if (!reply.is_positive()) break;
      end_transaction();
      transaction_.is_open = true;
      transaction_.mail_from = std::move(awaited.address);
      transaction_.mail_params = std::move(awaited.params);
      transaction_.is_binary = awaited.is_binary;
      break;
    case Verb::rcpt:
      learn_recipient(awaited.address, reply);
      if (transaction_.is_open)
        transaction_.recipients.push_back({std::move(awaited.address), std::move(awaited.params), reply.summary(),
                                           reply.is_positive() ? journal::Outcome::pending : outcome_of(reply)});
      break;
    case Verb::rset:
      if (reply.is_positive()) end_transaction();
      break;
    case Verb::data:
      if (reply.code != 354) break;
      mode_ = Mode::data;
      is_synchronising_ = true;
      break;
    case Verb::auth:
      mode_ = reply.code == 334 ? Mode::auth : Mode::commands;
      if (mode_ == Mode::auth) break;
      if (upstream_) upstream_->may_be_reused = false;
      if (reply.is_positive()) auth_ = pending_auth_;
      break;
    default:
      // Primaries count what moves no mail, and would count it against the next client.
      if (upstream_) upstream_->may_be_reused = false;
      break;
  }
}

void Session::flush() {
  if (upstream_) upstream_->stream.flush();
  client_.flush();
}

Task<Session::Next> Session::switch_route() {
  std::string line = std::exchange(line_, std::string());
  Command command = parse_command(line);
  std::optional<EnvelopeCommand> envelope = parse_envelope(command.argument, "TO:");
  std::size_t wanted = route_of_domain(settings_->config, domain_of(envelope->address), route_);
  if (upstream_ && transaction_.is_open) {
    upstream_->stream.flush("RSET\r\n");
    std::optional<Reply> reply = co_await upstream_->read_reply(wakeup_, after(limits().timeouts.command));
    if (!reply || !reply->is_positive()) upstream_.reset();
  }
  if (upstream_) worker_.pool.give_back(settings_, route_, std::move(upstream_));
  std::size_t before = route_;
  use_route(wanted);
  is_holding_ = board_->is_held();
  if (!is_holding_) {
    Reached reached = co_await reach_primary("", true);
    if (reached == Reached::nowhere) {
      turn_away(reached);
      co_return Next::go_on;
    }
    if (reached == Reached::refused) {
      // Its word on this recipient. The others have another primary.
      client_.write(refusal_->wire);
      is_over_ = refusal_->code == 421;
      trouble_since_.reset();
      use_route(before);
      co_return Next::go_on;
    }
  }
  Awaited awaited;
  awaited.verb = Verb::rcpt;
  awaited.address = std::string(envelope->address);
  awaited.params = std::string(envelope->params);
  forward(std::move(awaited), line);
  co_return Next::go_on;
}

Task<Session::Next> Session::quit() {
  const Reply* goodbye = worker_.pool.goodbye(route().name);
  if (is_holding_) goodbye = nullptr;
  if (goodbye && (!upstream_ || (upstream_->may_be_reused && !transaction_.is_open))) {
    client_.write(goodbye->wire);
    co_return Next::close;
  }
  if (!upstream_) {
    client_.write(own_reply(221, fmt::format("2.0.0 {} Bye", hostname())));
    co_return Next::close;
  }
  upstream_->stream.flush(line_);
  std::optional<Reply> reply = co_await upstream_->read_reply(wakeup_, after(limits().timeouts.command));
  if (reply && reply->code == 221) worker_.pool.learn_goodbye(route().name, *reply);
  client_.write(reply ? reply->wire : own_reply(221, fmt::format("2.0.0 {} Bye", hostname())));
  upstream_.reset();
  co_return Next::close;
}

/// The primary is gone, or not to be trusted, in the middle of something: converse() takes it from here.
void Session::lose_upstream(const std::string& why) {
  if (upstream_) worker_.pool.broke_off(*settings_, route_, upstream_->address, why);
  upstream_.reset();
  lost_why_ = why;
}

/// The same between two chunks: what was sent of the series is in the journal, and its end decides.
void Session::lose_upstream_in_chunks(const std::string& why) {
  worker_.pool.broke_off(*settings_, route_, upstream_->address, why);
  upstream_.reset();
  content_->lost_why = why;
}

void Session::drop_upstream() {
  upstream_.reset();
  transaction_.reset();
}

void Session::say_goodbye(int code, std::string_view text) {
  is_refused_ = true;
  is_synchronising_ = true;
  mode_ = Mode::commands;
  if (!awaited_.empty()) return answer(code, text);  // after the answers that are due
  client_.write(own_reply(code, text));
  is_over_ = true;
}

}  // namespace holdfast::proxy
