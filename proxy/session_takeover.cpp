// What a session does when its primary is not there: first a fresh connection, with all that the client has said so far; when
// no address answers for too long, Holdfast answers in the primary's place. The client notices neither.
#include <fmt/format.h>

#include <algorithm>

#include "proxy/address.h"
#include "proxy/log.h"
#include "proxy/session.h"
#include "proxy/session_content.h"

namespace holdfast::proxy {
namespace {

constexpr Duration first_pause{10}, longest_pause{200};

}  // namespace

void Session::use_route(std::size_t route) {
  route_ = route;
  board_ = &worker_.shared.control.board(this->route().name);
}

StandIn Session::stand_in() const { return {*settings_, route(), *board_, worker_.shared.control.directory()}; }

/// Between transactions a session goes over to what the route's state says.
void Session::follow_state() {
  if (!has_quiet() || mode_ != Mode::commands || !lost_why_.empty()) return;
  bool is_held = board_->is_held();
  if (is_held == is_holding_) return;
  is_holding_ = is_held;
  if (is_held && upstream_) worker_.pool.give_back(settings_, route_, std::move(upstream_));
  upstream_.reset();
}

void Session::primary_is_out(const std::string& route) {
  if (route != board_->name || is_holding_) return;
  is_primary_out_ = true;
  wakeup_.fire();
}

/// Nobody is there to be served: the connection is lost, or was ended before anything was said on it.
bool Session::has_client_left() const {
  bool has_said_something = !helo_line_.empty() || !awaited_.empty() || !client_.input().empty() || transaction_.is_open;
  return client_.is_broken() || (client_.is_ended() && !has_said_something);
}

/// Brings the session back to a live primary, or to where Holdfast answers for it. Neither may be when an operator has decided that
/// mail must pass, and the primary does not answer.
///
/// @param why  why the last connection was lost; empty when there was none.
/// @param is_switching  this primary has accepted nothing from the client yet
Task<Session::Reached> Session::reach_primary(std::string why, bool is_switching) {
  auto is_moot = [this] { return has_client_left() || board_->is_held(); };
  // DNS is not the primary: it may take its time.
  bool tells_name = route().identity == Identity::xclient && !facts_.name && !is_moot();
  if (tells_name) {
    ClientName name = co_await worker_.shared.names.find(facts_.client.address, wakeup_, is_moot);
    if (!is_moot()) facts_.name = std::move(name);
  }
  Control& control = worker_.shared.control;
  Deadline began = Clock::now();
  // That may be the client's or its message's doing: only many such losses say something about the primary.
  if (!why.empty() && !trouble_since_) control.faltered(*board_, why);
  refusal_.reset();
  bool is_unwanted = false, is_full = false;
  bool was_well = why.empty() && !trouble_since_;
  if (!trouble_since_) trouble_since_ = began;
  if (content_ && content_->is_bdat) content_->is_orphaned = true;
  Duration patience = route().failover.takeover_after + Duration(board_->opening_takes.load(std::memory_order_relaxed));
  Deadline since = *trouble_since_, by = since + patience;
  bool is_first = why.empty();
  // It can be reached, and fails at the same thing each time: not as fast as it can.
  bool goes_round = !why.empty() && since < began;
  Deadline next_round = began + std::clamp<Clock::duration>(began - since, first_pause, longest_pause);
  while (goes_round && Clock::now() < std::min(next_round, by) && !is_moot()) co_await wakeup_.wait(std::min(next_round, by));
  // A connection that was in the pool may have ended of age; that is no trouble.
  bool may_be_pooled = helo_line_.empty() && !transaction_.is_open && awaited_.empty() && is_first && !needs_ungreeted_;
  bool may_go_live = auth_.empty();
  // A client that is gone needs no primary; converse() sees that it is.
  for (Duration pause = first_pause; may_go_live && !board_->is_held() && !has_client_left(); pause = std::min(pause * 2, longest_pause)) {
    bool is_late = Clock::now() >= by && !is_first;
    if (is_late) break;
    is_first = false;
    Opening opening{settings_, route_, facts_, std::max(by, Clock::now() + std::chrono::milliseconds(20))};
    opening.is_fresh = !may_be_pooled;
    opening.is_gone = is_moot;
    opening.is_ungreeted = needs_ungreeted_ || !helo_line_.empty();
    why = co_await try_primary(opening, by, is_full);
    if (upstream_) {
      if (was_well) trouble_since_.reset();  // it has greeted; the client may take its time
      write_outstanding();
      co_return Reached::live;
    }
    if (is_holding_) co_return Reached::holding;
    may_be_pooled = false;
    is_unwanted = refusal_ && refusal_->is_about_client();
    if (!is_unwanted && !is_full && !is_moot()) control.failed(*board_, why);
    bool is_new_session = helo_line_.empty() && awaited_.empty() && !transaction_.is_open;
    bool says_it_again = refusal_ && refusal_->code == 421 && farewells_ > 0;
    // It is there and does not want this client: its word.
    if (says_it_again || (refusal_ && is_new_session) || (is_unwanted && (is_switching || !transaction_.is_open))) co_return Reached::refused;
    if (is_unwanted) break;
    Deadline next = std::min(by, Clock::now() + pause);
    while (Clock::now() < next && !board_->is_held()) co_await wakeup_.wait(next);
  }
  is_primary_out_ = false;
  if (has_client_left()) co_return Reached::nowhere;
  bool may_hold = board_->mode.load(std::memory_order_acquire) != failover::Mode::pass;
  if (!may_hold) {
    if (is_unwanted) co_return Reached::refused;
    log(LogLevel::error, "no_upstream", {{"session", id_}, {"route", route().name}, {"problem", why}});
    co_return Reached::nowhere;
  }
  if (may_go_live && !is_unwanted && !is_full && !board_->is_held()) control.gave_up(*board_, since, why);
  log(LogLevel::info, "takeover", {{"session", id_}, {"route", route().name}, {"client", to_string(facts_.client)}, {"problem", why}});
  trouble_since_.reset();
  is_holding_ = true;
  write_outstanding();
  co_return Reached::holding;
}

/// Opens a connection and tells it what the client has said. Returns an empty text, or why that failed; the
/// primary's refusal is in refusal_ then, when it was one, and is_full says whether it has as many
/// connections of Holdfast's as it takes.
Task<std::string> Session::try_primary(const Opening& opening, Deadline by, bool& is_full) {
  UpstreamPool::Opened opened = co_await worker_.pool.open(opening, wakeup_);
  is_primary_out_ = false;
  is_full = opened.full != nullptr;
  if (!opened.upstream) {
    refusal_ = std::move(opened.refusal);
    co_return opened.failure;
  }
  upstream_ = std::move(opened.upstream);
  std::string failure = co_await replay(by);
  if (failure.empty()) co_return failure;
  if (upstream_ && !refusal_) worker_.pool.failed(*settings_, route_, upstream_->address, failure);
  upstream_.reset();
  co_return failure;
}

/// Tells the client that there is nobody for it, and why.
void Session::turn_away(Reached reached) {
  if (reached == Reached::refused) {
    client_.write(refusal_->wire);
    is_over_ = true;
    return;
  }
  bool is_new_session = helo_line_.empty() && awaited_.empty();
  awaited_.clear();
  transaction_.reset();
  if (is_new_session)
    say_goodbye(421, fmt::format("4.3.2 {} The mail server is not reachable, try again later", hostname()));
  else
    say_goodbye(421, fmt::format("4.4.2 {} The mail server does not answer, try again later", hostname()));
}

/// Tells a fresh connection what the client has said and the primary accepted before. Returns an empty text, or why it failed; where
/// that was the primary's refusal, it is in refusal_.
Task<std::string> Session::replay(Deadline by) {
  by = std::max(by, Clock::now() + std::chrono::milliseconds(50));
  bool is_batch = false;
  if (!helo_line_.empty()) {
    upstream_->stream.flush(helo_line_);
    std::optional<Reply> reply = co_await upstream_->read_reply(wakeup_, by);
    if (!reply) co_return upstream_->failure;
    if (!reply->is_positive()) {
      refusal_ = reply;
      co_return "it refuses the client's greeting: " + reply->summary();
    }
    upstream_->greeter = Greeter::client;
    ++upstream_->greetings;
    bool is_extended = capabilities_.has_value();
    if (is_extended) {
      capabilities_ = Capabilities::of(*reply);
      offers_less_ = told_ && !capabilities_->covers(*told_);
      is_batch = capabilities_->has("PIPELINING");
    }
  }
  if (!transaction_.is_open) co_return "";
  std::string failure = co_await replay_envelope(by, is_batch);
  co_return failure;
}

Task<std::string> Session::replay_envelope(Deadline by, bool is_batch) {
  auto offered = [this](const std::string& params) {
    if (offers_less_) return offered_params(params, *capabilities_);
    return params.empty() ? params : " " + params;
  };
  std::vector<std::string> lines{fmt::format("MAIL FROM:<{}>{}\r\n", transaction_.mail_from, offered(transaction_.mail_params))};
  std::vector<std::size_t> asked;
  for (std::size_t i = 0; i < transaction_.recipients.size(); ++i) {
    const journal::Recipient& one = transaction_.recipients[i];
    if (one.outcome != journal::Outcome::pending) continue;
    lines.push_back(fmt::format("RCPT TO:<{}>{}\r\n", one.address, offered(one.params)));
    asked.push_back(i);
  }
  if (is_batch) {
    for (const std::string& line : lines) upstream_->stream.write(line);
    upstream_->stream.flush();
  }
  std::size_t refused = 0;
  for (std::size_t i = 0; i < lines.size(); ++i) {
    if (!is_batch) upstream_->stream.flush(lines[i]);
    std::optional<Reply> reply = co_await upstream_->read_reply(wakeup_, by);
    if (!reply) co_return upstream_->failure;
    if (reply->code == 421 || (i == 0 && !reply->is_positive())) {
      refusal_ = reply;
      co_return "it says " + reply->summary();
    }
    if (i == 0 || reply->is_positive()) continue;
    // The client was told that this recipient exists: Holdfast answers for it.
    journal::Recipient& one = transaction_.recipients[asked[i - 1]];
    one.outcome = journal::Outcome::held;
    one.reply = reply->summary();
    ++refused;
  }
  if (!asked.empty() && refused == asked.size()) {
    is_holding_ = true;
    co_return "it refuses all recipients now";
  }
  co_return "";
}

/// What was asked and not answered is asked again. A login cannot be: its secrets are not kept.
void Session::write_outstanding() {
  for (Awaited& awaited : awaited_) {
    if (awaited.verb == Verb::auth && awaited.own_reply.empty()) {
      awaited.own_reply = own_reply(454, login_is_lost);
      mode_ = Mode::commands;
      is_synchronising_ = false;
    }
    awaited.is_sent = !awaited.own_reply.empty();
  }
  send_unsent();
  // The client's next line is still one of the exchange, perhaps its password: it must not be taken for a command.
  has_lost_login_ = awaited_.empty() && mode_ == Mode::auth;
  greeting_sent_ = Clock::now();
  if (upstream_) upstream_->stream.flush();
}

/// All at once, or, where this primary does not pipeline, what is the next to be answered.
void Session::send_unsent() {
  bool is_batch = capabilities_ && capabilities_->has("PIPELINING");
  has_unsent_ = false;
  if (!upstream_) return;
  for (Awaited& awaited : awaited_) {
    if (!awaited.own_reply.empty()) continue;
    has_unsent_ = !is_batch && &awaited != &awaited_.back();
    if (!std::exchange(awaited.is_sent, true)) send(awaited);
    if (!is_batch) return;
  }
}

void Session::learn_recipient(const std::string& address, const Reply& reply) {
  if (is_holding_ || address.empty()) return;
  bool exists = reply.is_positive();
  // To who has logged in, it says whether he may send there.
  if (exists && !auth_.empty() && !is_served(settings_->config, domain_of(address))) return;
  if (exists || failover::says_unknown(reply.wire))
    worker_.shared.control.directory().learn(address, exists, reply.summary(), journal::now_us());
}

/// What the primary said to a whole message tells how it is.
void Session::note_verdict(const Reply& reply) {
  if (reply.is_positive()) board_->successes.fetch_add(1, std::memory_order_relaxed);
  if (reply.is_transient() && reply.has_status("4.3.")) worker_.shared.control.faltered(*board_, reply.summary());
  // Some take every recipient, and refuse those whom they do not know only now. Of several, it may be any.
  if (reply.is_permanent() && transaction_.recipients.size() == 1) learn_recipient(transaction_.recipients.front().address, reply);
}

}  // namespace holdfast::proxy
