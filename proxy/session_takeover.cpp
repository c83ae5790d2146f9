// What a session does when its primary is not there: first a fresh connection, with all that the client has said so far; when
// no address answers for too long, Holdfast answers in the primary's place. The client notices neither.
#include <fmt/format.h>

#include <algorithm>

#include "proxy/address.h"
#include "proxy/log.h"
#include "proxy/parameters.h"
#include "proxy/session.h"
#include "proxy/session_content.h"

namespace holdfast::proxy {
namespace {

constexpr Duration first_look_pause{10}, longest_look_pause{200};

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

bool Session::needs_no_primary() const { return has_client_left() || board_->is_held(); }

/// Brings the session back to a live primary, or to where Holdfast answers for it. Neither may be when an operator has decided that
/// mail must pass, and the primary does not answer.
///
/// @param why  why the last connection was lost; empty when there was none.
/// @param is_switching  this primary has accepted nothing from the client yet
Task<Session::Reached> Session::reach_primary(std::string why, bool is_switching) {
  co_await find_client_name();
  Search search = begin_search(std::move(why));
  co_await pause_between_rounds(search);
  std::optional<Reached> reached;
  bool is_logged_in = !auth_.empty();  // no other connection would know it
  if (!is_logged_in) reached = co_await try_until_late(search, is_switching);
  if (!reached) reached = stand_in_for_primary(search);
  co_return *reached;
}

/// A primary that is told who its clients are is told their names. DNS is not the primary: it may take its time.
Task<void> Session::find_client_name() {
  if (route().identity != Identity::xclient || facts_.name || needs_no_primary()) co_return;
  ClientName name = co_await worker_.shared.names.find(facts_.client.address, wakeup_, [this] { return needs_no_primary(); });
  if (!needs_no_primary()) facts_.name = std::move(name);
}

Session::Search Session::begin_search(std::string why) {
  Search search{.began = Clock::now(), .is_after_loss = !why.empty(), .was_well = why.empty() && !trouble_since_};
  // That may be the client's or its message's doing: only such losses of many say something about the primary.
  if (search.is_after_loss && !std::exchange(has_faltered_, true)) worker_.shared.control.faltered(*board_, why);
  if (content_ && content_->is_bdat) content_->is_orphaned = true;
  if (!trouble_since_) trouble_since_ = search.began;
  search.since = *trouble_since_;
  search.by = search.since + route().failover.takeover_after + Duration(board_->opening_takes.load(std::memory_order_relaxed));
  search.why = std::move(why);
  return search;
}

/// A primary that can be reached, and fails at the same thing each time, is not asked as fast as it can fail.
Task<void> Session::pause_between_rounds(const Search& search) {
  bool goes_round = search.is_after_loss && search.since < search.began;
  Clock::duration pause = std::clamp<Clock::duration>(search.began - search.since, first_look_pause, longest_look_pause);
  Deadline next = std::min(search.began + pause, search.by);
  while (goes_round && Clock::now() < next && !needs_no_primary()) co_await wakeup_.wait(next);
}

/// Nothing, when time has run out, or the client has gone, or Holdfast is to answer.
Task<std::optional<Session::Reached>> Session::try_until_late(Search& search, bool is_switching) {
  bool is_new_session = helo_line_.empty() && awaited_.empty() && !transaction_.is_open;
  bool is_first = !search.is_after_loss;
  // One that was in the pool may have ended of age; that is no trouble.
  bool may_be_pooled = is_new_session && is_first && !needs_ungreeted_;
  for (Duration pause = first_look_pause; !needs_no_primary(); pause = std::min(pause * 2, longest_look_pause)) {
    bool is_late = !std::exchange(is_first, false) && Clock::now() >= search.by;
    if (is_late) break;
    Opening opening{settings_, route_, facts_, std::max(search.by, Clock::now() + std::chrono::milliseconds(20))};
    opening.is_fresh = !std::exchange(may_be_pooled, false);
    opening.is_gone = [this] { return needs_no_primary(); };
    opening.is_ungreeted = needs_ungreeted_ || !helo_line_.empty();
    co_await try_primary(opening, search);
    if (upstream_) {
      if (search.was_well) trouble_since_.reset();  // it has greeted; the client may take its time
      write_outstanding();
      co_return Reached::live;
    }
    if (is_holding_) co_return Reached::holding;
    if (!search.is_unwanted && !search.is_full && !needs_no_primary()) worker_.shared.control.failed(*board_, search.why);
    bool says_it_again = refusal_ && refusal_->code == 421 && farewells_ > 0;
    bool has_promised_nothing = is_switching || !transaction_.is_open;
    // It is there and does not want this client: its word.
    if (says_it_again || (refusal_ && is_new_session) || (search.is_unwanted && has_promised_nothing)) co_return Reached::refused;
    if (search.is_unwanted) break;
    Deadline next = std::min(search.by, Clock::now() + pause);
    while (Clock::now() < next && !board_->is_held()) co_await wakeup_.wait(next);
  }
  co_return std::nullopt;
}

/// Opens a connection and tells it what the client has said: upstream_ is set then. Otherwise the search knows why not, and the
/// primary's refusal is in refusal_, when it was one.
Task<void> Session::try_primary(const Opening& opening, Search& search) {
  refusal_.reset();
  UpstreamPool::Opened opened = co_await worker_.pool.open(opening, wakeup_);
  is_primary_out_ = false;
  search.is_full = opened.full != nullptr;
  search.why = opened.failure;
  if (opened.upstream) {
    upstream_ = std::move(opened.upstream);
    search.why = co_await replay(search.by);
    if (search.why.empty()) co_return;
    if (upstream_ && !refusal_) worker_.pool.broke_off(*settings_, route_, upstream_->address, search.why);
    upstream_.reset();
  } else {
    refusal_ = std::move(opened.refusal);
  }
  search.is_unwanted = refusal_ && refusal_->is_about_client();
}

/// What becomes of a client for which no primary was found.
Session::Reached Session::stand_in_for_primary(const Search& search) {
  is_primary_out_ = false;
  if (has_client_left()) return Reached::nowhere;  // converse() sees that it has
  bool may_hold = board_->mode.load(std::memory_order_acquire) != failover::Mode::pass;
  if (!may_hold && search.is_unwanted) return Reached::refused;
  if (!may_hold) {
    log(LogLevel::error, "no_upstream", {{"session", id_}, {"route", route().name}, {"problem", search.why}});
    return Reached::nowhere;
  }
  bool was_tried = auth_.empty() && !board_->is_held();
  if (was_tried && !search.is_unwanted && !search.is_full) worker_.shared.control.gave_up(*board_, search.since, search.why);
  log(LogLevel::info, "takeover", {{"session", id_}, {"route", route().name}, {"client", to_string(facts_.client)}, {"problem", search.why}});
  trouble_since_.reset();
  is_holding_ = true;
  write_outstanding();
  return Reached::holding;
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
    bool is_extended = capabilities_.has_value();
    bool knows_helo_alone = reply && is_extended && reply->is_command_unknown();  // RFC 5321 3.2
    if (knows_helo_alone) {
      upstream_->stream.flush(fmt::format("HELO {}\r\n", helo_));
      reply = co_await upstream_->read_reply(wakeup_, by);
    }
    if (!reply) co_return upstream_->failure;
    if (!reply->is_positive()) {
      refusal_ = reply;
      co_return "it refuses the client's greeting: " + reply->summary();
    }
    upstream_->greeter = Greeter::client;
    ++upstream_->greetings;
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
  if (exists || failover::says_unknown(reply.wire)) worker_.shared.control.directory().learn(address, exists, reply.summary(), journal::now_us());
}

/// What the primary said to a whole message tells how it is.
void Session::note_verdict(const Reply& reply) {
  if (reply.is_positive()) board_->successes.fetch_add(1, std::memory_order_relaxed);
  if (reply.is_transient() && reply.has_status("4.3.")) worker_.shared.control.faltered(*board_, reply.summary());
  // Some take every recipient, and refuse those whom they do not know only now. Of several, it may be any.
  if (reply.is_permanent() && transaction_.recipients.size() == 1) learn_recipient(transaction_.recipients.front().address, reply);
}

}  // namespace holdfast::proxy
