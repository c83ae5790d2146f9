// What becomes of a whole message: it is committed, then the primary gets its end and says its word; when the primary has gone
// meanwhile, another connection gets the message out of the journal, or Holdfast holds it.
#include <fmt/format.h>

#include <algorithm>

#include "proxy/header_fields.h"
#include "proxy/log.h"
#include "proxy/session_content.h"

namespace holdfast::proxy {

/// Nothing can become of the content, whoever is asked.
bool Session::is_void(const Content& content) const {
  bool must_be_journaled = settings_->config.journal.when_full == WhenFull::refuse;
  return content.is_too_large || (content.ticket->has_failed() && must_be_journaled) || content.early_reply;
}

/// What the client is told when the primary cannot be asked.
Reply Session::own_verdict() const {
  Reply reply;
  if (content_ && content_->is_too_large) {
    reply.code = 552;
    reply.wire = own_reply(552, "5.3.4 Error: message file too big");
  } else if (content_ && content_->early_reply) {
    reply = *content_->early_reply;
  } else if (content_ && (content_->ticket->has_failed() || content_->is_unholdable)) {
    reply.code = 452;
    reply.wire = own_reply(452, "4.3.1 Insufficient system storage, try again later");
  } else {
    reply.code = 451;
    reply.wire = own_reply(451, "4.4.2 The mail server does not answer, try again later");
  }
  return reply;
}

/// All content is here. Commits it, lets the primary have the end, and gives the client the primary's word; or, when the
/// primary is away, holds the message.
Task<Session::Next> Session::finish_content(Content& content) {
  bool is_parallel = settings_->config.journal.order == JournalOrder::parallel && upstream_;
  bool is_committed = false;
  if (!content.is_too_large && !content.ticket->has_failed()) {
    journal::MessageRecord record = make_record();
    content.draft.finish(std::move(record));
    if (is_parallel) send_end(content);
    while (!content.ticket->is_settled()) co_await wakeup_.wait(Deadline::max());
    is_committed = content.ticket->is_committed();
  }
  bool is_bypassing = !is_committed && !content.is_too_large && settings_->config.journal.when_full == WhenFull::bypass && upstream_;
  if (is_bypassing) {
    worker_.shared.bypassed.fetch_add(1, std::memory_order_relaxed);
    log(LogLevel::error, "bypass",
        {{"session", id_}, {"from", transaction_.mail_from}, {"problem", "passed WITHOUT a journal entry: " + content.ticket->error().message}});
  }
  Reply verdict = own_verdict();
  if (is_committed && is_holding_) {
    // The record says that the recipients are held: it needs no more.
    verdict = StandIn::taken(content.ticket->id());
    give_to_control(content);
  } else if ((is_committed && !content.early_reply) || is_bypassing) {
    verdict = co_await live_verdict(content, is_committed, is_parallel);
  } else {
    upstream_.reset();
  }
  tell_of_message(content, verdict);
  if (is_committed && !content.is_held) settle(content, verdict);
  client_.write(verdict.wire);
  if (verdict.is_positive()) commands_ = 0;
  end_transaction();
  co_return Next::go_on;
}

/// The primary's word on the whole message: from this connection, from a fresh one, or Holdfast's own when it holds the message.
Task<Reply> Session::live_verdict(Content& content, bool is_committed, bool is_end_sent) {
  bool may_have_arrived = false;
  std::optional<Reply> reply;
  std::string why = content.lost_why;
  if (upstream_) {
    if (!is_end_sent) send_end(content);
    reply = co_await final_reply(why);
    may_have_arrived = !reply && !upstream_->stream.has_lost_output();
  }
  while (!reply) {
    if (upstream_) worker_.pool.broke_off(*settings_, route_, upstream_->address, why);
    upstream_.reset();
    if (!is_committed) {
      worker_.shared.control.faltered(*board_, why);
      co_return own_verdict();
    }
    if (may_have_arrived) mark_possible_duplicate(content);
    Reached reached = co_await reach_primary(std::exchange(why, std::string("it went away")));
    if (reached == Reached::refused || reached == Reached::nowhere) {
      is_over_ = true;
      content.is_for_nobody = reached == Reached::nowhere && has_client_left();
      co_return reached == Reached::refused ? *refusal_ : own_verdict();
    }
    if (reached == Reached::holding) {
      std::optional<Reply> held = co_await hold_message(content);
      co_return held ? *held : own_verdict();
    }
    reply = co_await send_again(content, why, may_have_arrived);
  }
  ++upstream_->transactions;
  worker_.pool.lives(*settings_, route_, *upstream_);
  trouble_since_.reset();
  if (!reply->is_positive()) upstream_->may_be_reused = false;
  note_verdict(*reply);
  bool keeps_some = std::any_of(transaction_.recipients.begin(), transaction_.recipients.end(),
                                [](const journal::Recipient& one) { return one.outcome == journal::Outcome::held; });
  // Some recipients were accepted before the primary went, and refused after: they are Holdfast's, if the message is anybody's.
  if (!keeps_some || !reply->is_positive()) co_return *reply;
  if (!is_committed) {
    upstream_.reset();
    co_return own_verdict();
  }
  std::optional<Reply> held = co_await hold_message(content, &*reply);
  co_return held ? *reply : own_verdict();
}

/// Content to a fresh connection, after its envelope: from memory while it is small, else out of the journal.
Task<std::optional<Reply>> Session::send_again(Content& content, std::string& failure, bool& is_end_sent) {
  std::optional<Reply> none;
  auto entry = worker_.shared.journal.entry(content.ticket->id());
  if (!entry) {
    failure = entry.error().message;
    co_return none;
  }
  std::uint64_t size = entry->message.size, sent = 0;
  ContentEncoder encoder;
  // To one that knows no chunks, their bytes would be commands.
  bool in_chunks = content.is_bdat && takes_chunks();
  if (transaction_.is_binary && !in_chunks) {
    failure = "it takes no binary content";
    co_return none;
  }
  if (in_chunks) {
    upstream_->stream.write(fmt::format("BDAT {} LAST\r\n", size));
  } else {
    upstream_->stream.flush("DATA\r\n");
    std::optional<Reply> go_ahead = co_await upstream_->read_reply(wakeup_, after(limits().timeouts.data_start));
    if (!go_ahead) failure = upstream_->failure;
    if (!go_ahead || go_ahead->code == 421) co_return none;
    bool is_refusal = go_ahead->is_transient() || go_ahead->is_permanent();
    if (is_refusal) co_return go_ahead;
    if (go_ahead->code != 354) {
      failure = "it answered DATA with neither 354 nor a refusal";
      co_return none;
    }
  }
  for (std::uint32_t index = 0;; ++index) {
    auto frame = worker_.shared.journal.frame(*entry, index);
    if (!frame) {
      failure = frame.error().message;
      co_return none;
    }
    if (!*frame) break;
    sent += (*frame)->size();
    bool is_over = in_chunks && sent == size;  // the last octet of a chunk ends the message
    if (in_chunks || encoder.is_plain(**frame)) {
      encoder.skip(**frame);
      upstream_->stream.flush(**frame);
    } else {
      std::string stuffed;
      encoder.feed(**frame, stuffed);
      upstream_->stream.flush(stuffed);
    }
    Deadline due = after(limits().timeouts.data_block);
    while (upstream_->stream.is_flooded() && upstream_->stream.is_alive() && Clock::now() < due && !is_primary_out_) co_await wakeup_.wait(due);
    if (is_over) break;
    if (!upstream_->stream.is_alive() || upstream_->stream.is_flooded()) {
      failure = "it went away in the middle of a message";
      co_return none;
    }
  }
  if (!in_chunks) upstream_->stream.write(encoder.end());
  upstream_->stream.flush();
  std::optional<Reply> reply = co_await final_reply(failure);
  is_end_sent = !upstream_->stream.has_lost_output();
  co_return reply;
}

/// The message is in the journal with recipients that are pending: makes it durable that they are held before anybody is told.
///
/// @param verdict  the primary's word for the recipients that it took itself; null when it took none.
Task<std::optional<Reply>> Session::hold_message(Content& content, const Reply* verdict) {
  journal::OutcomeRecord outcome;
  outcome.time_us = journal::now_us();
  outcome.entry = content.ticket->id();
  for (std::uint32_t i = 0; i < transaction_.recipients.size(); ++i) {
    journal::Recipient& one = transaction_.recipients[i];
    if (!verdict && one.outcome == journal::Outcome::pending) one.outcome = journal::Outcome::held;
    if (one.outcome == journal::Outcome::held) outcome.changes.push_back({i, journal::Outcome::held, one.reply});
  }
  if (verdict) outcome.changes.push_back({journal::OutcomeRecord::every_pending, outcome_of(*verdict), verdict->summary()});
  auto ticket = std::make_shared<LoopTicket>(worker_.loop, wakeup_);
  worker_.shared.journal.writer().submit_urgent(journal::RecordKind::outcome, journal::encode(outcome), ticket);
  while (!ticket->is_settled()) co_await wakeup_.wait(Deadline::max());
  ticket->forget();
  std::optional<Reply> none;
  if (!ticket->is_committed()) {
    content.is_unholdable = true;
    co_return none;
  }
  give_to_control(content);
  co_return StandIn::taken(content.ticket->id());
}

void Session::give_to_control(Content& content) {
  std::vector<HeldRecipient> held;
  for (std::uint32_t i = 0; i < transaction_.recipients.size(); ++i) {
    const journal::Recipient& one = transaction_.recipients[i];
    bool is_held = one.outcome == journal::Outcome::held || (is_holding_ && one.outcome == journal::Outcome::pending);
    if (is_held) held.push_back({i, one.address});
  }
  content.is_held = true;
  worker_.shared.control.hold(*board_, content.ticket->id(), journal::now_us(), std::move(held));
}

void Session::send_end(Content& content) {
  if (!upstream_) return;
  if (content.is_bdat) return upstream_->stream.flush(content.held_back);
  if (content.is_streaming) return upstream_->stream.flush(content.encoder.end());
  std::string_view whole = content.draft.whole();
  if (content.encoder.is_plain(whole)) {
    content.encoder.skip(whole);
    return upstream_->stream.flush(whole, content.encoder.end());
  }
  std::string stuffed;
  content.encoder.feed(whole, stuffed);
  upstream_->stream.flush(stuffed, content.encoder.end());
}

/// The answer to the end of a message or chunk. Nothing, and failure set, when the primary is gone, says that it goes, or
/// when the breaker has tripped and no answer comes for takeover_after more.
Task<std::optional<Reply>> Session::final_reply(std::string& failure) {
  Deadline due = after(limits().timeouts.data_end);
  bool is_shortened = false;
  std::optional<Reply> none;
  for (;;) {
    Reply reply;
    Upstream::Poll found = upstream_->poll_reply(reply);
    if (found == Upstream::Poll::failed) {
      failure = upstream_->failure;
      co_return none;
    }
    if (found == Upstream::Poll::reply) {
      bool is_intermediate = reply.is_intermediate();
      if (is_intermediate) failure = "it sent an intermediate reply where none belongs";
      if (reply.code == 421) failure = "it says " + reply.summary();
      bool is_hasty = reply.is_positive() && upstream_->stream.has_lost_output();
      if (is_hasty) failure = "it went away before it had everything, and said " + reply.summary();
      if (is_intermediate || is_hasty || reply.code == 421) co_return none;
      co_return reply;
    }
    if (is_primary_out_ && !is_shortened) {
      is_shortened = true;
      due = std::min(due, Clock::now() + route().failover.takeover_after);
    }
    bool in_time = co_await wakeup_.wait(due);
    if (!in_time && Clock::now() >= due) {
      failure = "it did not answer in time";
      co_return none;
    }
  }
}

journal::MessageRecord Session::make_record() const {
  journal::MessageRecord record;
  record.time_us = journal::now_us();
  record.direction = listener_.role == Role::submission ? journal::Direction::outbound : journal::Direction::inbound;
  record.session = id_;
  record.route = route().name;
  record.client = to_string(facts_.client);
  record.server = to_string(facts_.server);
  record.helo = helo_;
  record.protocol = protocol();
  record.tls = client_.tls_description();
  record.auth = auth_;
  record.mail_from = transaction_.mail_from;
  record.mail_params = transaction_.mail_params;
  record.recipients = transaction_.recipients;
  // What Holdfast is to keep for some, it keeps only if the primary takes the message: until then it is nobody's.
  journal::Outcome before = is_holding_ ? journal::Outcome::pending : journal::Outcome::held;
  journal::Outcome now = is_holding_ ? journal::Outcome::held : journal::Outcome::pending;
  for (journal::Recipient& one : record.recipients)
    if (one.outcome == before) one.outcome = now;
  HeaderFields fields = read_header_fields(content_->draft.beginning());
  record.message_id = std::move(fields.message_id);
  record.subject = std::move(fields.subject);
  return record;
}

/// How the message came, as a Received line says it (RFC 3848, RFC 6531 4.3).
std::string Session::protocol() const {
  bool is_extended = capabilities_.has_value();
  if (!is_extended) return "SMTP";
  bool is_international = upper(transaction_.mail_params).find("SMTPUTF8") != std::string::npos;
  std::string name = is_international ? "UTF8SMTP" : "ESMTP";
  if (client_.is_tls()) name += 'S';
  if (!auth_.empty()) name += 'A';
  return name;
}

/// What the primary said is the outcome of all recipients that it had accepted.
void Session::settle(Content& content, const Reply& verdict) {
  journal::OutcomeRecord outcome;
  outcome.time_us = journal::now_us();
  outcome.entry = content.ticket->id();
  if (content.is_for_nobody)
    outcome.changes.push_back(
        {journal::OutcomeRecord::every_pending, journal::Outcome::abandoned, "the client left before the primary had answered"});
  else
    outcome.changes.push_back({journal::OutcomeRecord::every_pending, outcome_of(verdict), verdict.summary()});
  worker_.shared.journal.writer().submit_record(journal::RecordKind::outcome, journal::encode(outcome));
}

/// An end of the message was sent, and its answer lost. Recorded before it is sent again: what comes then may be cut short.
void Session::mark_possible_duplicate(Content& content) {
  if (std::exchange(content.is_possible_duplicate, true)) return;
  worker_.shared.journal.writer().submit_record(journal::RecordKind::outcome,
                                                journal::encode(journal::OutcomeRecord{journal::now_us(), content.ticket->id(), true, {}}));
  board_->possible_duplicates.fetch_add(1, std::memory_order_relaxed);
}

/// Counts it, and writes it to the log.
void Session::tell_of_message(const Content& content, const Reply& reply) {
  RouteBoard::Messages& counts = board_->messages;
  auto& count = content.is_held         ? counts.held
                : content.is_for_nobody ? counts.abandoned
                : reply.is_positive()   ? counts.forwarded
                : reply.is_permanent()  ? counts.rejected
                                        : counts.deferred;
  count.fetch_add(1, std::memory_order_relaxed);
  if (!is_logged(LogLevel::info)) return;
  std::string first = transaction_.recipients.empty() ? "" : transaction_.recipients.front().address;
  journal::Outcome outcome = content.is_held ? journal::Outcome::held : content.is_for_nobody ? journal::Outcome::abandoned : outcome_of(reply);
  log(LogLevel::info, "message",
      {{"session", id_},
       {"entry", content.ticket->id()},
       {"client", to_string(facts_.client)},
       {"from", transaction_.mail_from},
       {"to", first},
       {"recipients", transaction_.recipients.size()},
       {"size", content.draft.size()},
       {"outcome", journal::to_string(outcome)},
       {"reply", reply.summary()}});
}

}  // namespace holdfast::proxy
