// How a session relays content: from the client into the journal and to the primary, with back-pressure from whichever is
// slower, and the end of the content only after the commit (journal.order: before).

#include "proxy/session_content.h"

#include <fmt/format.h>

#include <algorithm>

#include "proxy/header_fields.h"
#include "proxy/log.h"

namespace holdfast::proxy {
namespace {

/// A client that sends less than this in the time for a block is too slow, however steady.
constexpr std::size_t least_progress = 1024;

}  // namespace

void Session::begin_content() {
  if (!content_) content_ = std::make_unique<Content>(worker_, wakeup_);
}

/// One piece of decoded content: into the draft, and to the primary when the content is too large to be kept back.
void Session::take_content(std::string_view piece) {
  Content& content = *content_;
  if (piece.empty() || content.is_too_large) return;
  if (content.draft.size() + piece.size() > limits().message_size) {
    content.is_too_large = true;
    drop_upstream();  // it must not take what it has for the whole
    return;
  }
  bool may_fail = settings_->config.journal.when_full == WhenFull::refuse;
  if (content.ticket->has_failed() && may_fail) return drop_upstream();
  if (!content.is_bdat) {
    if (!content.is_streaming && content.draft.size() + piece.size() > journal::frame_plain_size) {
      content.is_streaming = true;
      forward_content(content.draft.whole());
    }
    if (content.is_streaming) forward_content(piece);
  }
  content.draft.append(piece);
}

void Session::forward_content(std::string_view piece) {
  if (!upstream_) return;
  if (content_->encoder.is_plain(piece)) {
    content_->encoder.skip(piece);
    upstream_->stream.flush(piece);
    return;
  }
  std::string stuffed;
  content_->encoder.feed(piece, stuffed);
  upstream_->stream.flush(stuffed);
}

/// The primary may say something, or go, before it has everything.
void Session::watch_upstream() {
  if (!upstream_) return;
  Reply reply;
  std::size_t consumed = 0;
  ReplyParser::State state = ReplyParser().parse(upstream_->stream.input(), reply, consumed);
  if (state == ReplyParser::State::incomplete && upstream_->stream.is_alive()) return;
  bool is_refusal = state == ReplyParser::State::complete && (reply.is_transient() || reply.is_permanent());
  if (is_refusal)
    content_->early_reply = std::move(reply);
  else
    worker_.pool.failed(*settings_, route_, upstream_->address, "it went away in the middle of a message");
  Transaction kept = transaction_;
  drop_upstream();
  transaction_ = std::move(kept);
}

/// Waits for more of the content, or for room to put it. False when the session must end.
Task<bool> Session::wait_for_content(Deadline& due, std::uint64_t& size_then) {
  const Content& content = *content_;
  if (content.draft.size() - size_then >= least_progress) {
    due = after(limits().timeouts.data_block);
    size_then = content.draft.size();
  }
  if (is_stopped_ || client_.is_broken()) co_return false;
  bool in_time = co_await wakeup_.wait(due);
  if (in_time) co_return true;
  say_goodbye(421, fmt::format("4.4.2 {} Error: timeout exceeded", hostname()));
  co_return false;
}

Task<Session::Next> Session::relay_data() {
  begin_content();
  Content& content = *content_;
  Deadline due = after(limits().timeouts.data_block);
  std::uint64_t size_then = 0;
  for (;;) {
    watch_upstream();
    bool is_blocked = content.draft.is_flooded() || (upstream_ && upstream_->stream.is_flooded());
    if (!is_blocked && !client_.input().empty()) {
      std::size_t consumed = 0;
      ContentDecoder::Verdict verdict =
          content.decoder.feed(client_.input(), consumed, [this](std::string_view piece) { take_content(piece); });
      client_.consume(consumed);
      if (verdict == ContentDecoder::Verdict::bare_newline) {
        refuse_bare_newline();
        co_return Next::close;
      }
      if (verdict == ContentDecoder::Verdict::end) break;
      continue;
    }
    if (client_.is_ended() && client_.input().empty()) co_return abandon_content();
    bool goes_on = co_await wait_for_content(due, size_then);
    if (!goes_on) co_return abandon_content();
  }
  Next next = co_await finish_content(content);
  co_return next;
}

/// A chunk: its bytes are counted, not searched. The last chunk is kept back, whole or but for its last byte, until the commit.
Task<Session::Next> Session::relay_bdat(BdatCommand chunk, std::string line) {
  bool is_part = transaction_.has_accepted_recipients();
  if (is_part) begin_content();
  std::uint64_t left = chunk.size;
  bool keeps_all = chunk.is_last && chunk.size <= journal::frame_plain_size;
  std::string held = line;
  if (!keeps_all) {
    if (upstream_) upstream_->stream.write(line);
    held.clear();
  }
  if (content_) content_->is_bdat = true;
  Deadline due = after(limits().timeouts.data_block);
  std::uint64_t left_then = left;
  while (left > 0) {
    if (content_) watch_upstream();
    bool is_blocked = (content_ && content_->draft.is_flooded()) || (upstream_ && upstream_->stream.is_flooded());
    if (is_blocked || client_.input().empty()) {
      if (client_.is_ended() && client_.input().empty()) co_return abandon_content();
      if (left_then - left >= least_progress) {
        due = after(limits().timeouts.data_block);
        left_then = left;
      }
      if (is_stopped_ || client_.is_broken()) co_return abandon_content();
      bool in_time = co_await wakeup_.wait(due);
      if (!in_time) {
        say_goodbye(421, fmt::format("4.4.2 {} Error: timeout exceeded", hostname()));
        co_return abandon_content();
      }
      continue;
    }
    std::string piece(client_.input().substr(0, static_cast<std::size_t>(std::min<std::uint64_t>(left, Loop::scratch_size))));
    client_.consume(piece.size());
    left -= piece.size();
    if (content_ && !transaction_.is_binary && !content_->newlines.feed(piece)) {
      refuse_bare_newline();
      co_return Next::close;
    }
    if (content_) take_content(piece);
    if (keeps_all) {
      held += piece;
    } else if (upstream_) {
      std::size_t kept = chunk.is_last && left == 0 ? 1 : 0;
      upstream_->stream.flush(std::string_view(piece).substr(0, piece.size() - kept));
      held = piece.substr(piece.size() - kept);
    }
  }
  if (chunk.is_last && content_) {
    if (!transaction_.is_binary && !content_->newlines.is_whole()) {
      refuse_bare_newline();
      co_return Next::close;
    }
    content_->held_back = std::move(held);
    Next next = co_await finish_content(*content_);
    co_return next;
  }
  Next next = co_await finish_chunk(held);
  co_return next;
}

/// A chunk that ends nothing, or that belongs to no transaction: the primary's word on it is the client's.
Task<Session::Next> Session::finish_chunk(const std::string& held) {
  if (!upstream_) {
    // Too large, journal failed, or the primary spoke early: the client learns it now, the rest of the series is void.
    Reply reply = own_verdict();
    client_.write(reply.wire);
    end_transaction();
    co_return Next::go_on;
  }
  upstream_->stream.flush(held);
  std::string failure;
  std::optional<Reply> reply = co_await final_reply(failure);
  if (!reply) {
    lose_upstream(failure);
    co_return Next::close;
  }
  if (!content_ && reply->is_positive()) {
    // It takes content for recipients that it refused: nothing of this was journaled, so it may not be acknowledged.
    lose_upstream("it accepted content without a recipient");
    co_return Next::close;
  }
  client_.write(reply->wire);
  if (!reply->is_positive()) {
    upstream_->may_be_reused = false;
    content_.reset();
    // What the primary makes of later chunks is its business; they belong to no content of ours.
    for (journal::Recipient& recipient : transaction_.recipients)
      if (recipient.outcome == journal::Outcome::pending) recipient.outcome = outcome_of(*reply);
  }
  co_return Next::go_on;
}

void Session::refuse_bare_newline() {
  log(LogLevel::warning, "refused", {{"session", id_}, {"client", to_string(facts_.client)}, {"from", transaction_.mail_from}, {"reason", "bare CR or LF in the content"}});
  drop_upstream();
  content_.reset();
  say_goodbye(521, "5.5.2 Error: bare <CR> or <LF> received");
}

/// The client went in the middle: nothing was promised, nothing is kept.
Session::Next Session::abandon_content() {
  drop_upstream();
  content_.reset();
  return Next::close;
}

/// What the client is told when the primary cannot be asked.
Reply Session::own_verdict() const {
  Reply reply;
  if (content_ && content_->is_too_large) {
    reply.code = 552;
    reply.wire = own_reply(552, "5.3.4 Error: message file too big");
  } else if (content_ && content_->ticket->has_failed() && settings_->config.journal.when_full == WhenFull::refuse) {
    reply.code = 452;
    reply.wire = own_reply(452, "4.3.1 Insufficient system storage, try again later");
  } else if (content_ && content_->early_reply) {
    reply = *content_->early_reply;
  } else {
    reply.code = 451;
    reply.wire = own_reply(451, "4.4.2 The mail server does not answer, try again later");
  }
  return reply;
}

/// All content is here. Commits it, lets the primary have the end, and gives the client the primary's word.
Task<Session::Next> Session::finish_content(Content& content) {
  bool is_parallel = settings_->config.journal.order == JournalOrder::parallel;
  bool is_committed = false;
  if (!content.is_too_large && !content.ticket->has_failed()) {
    journal::MessageRecord record = make_record();
    content.draft.finish(record);
    if (is_parallel) send_end(content);
    while (!content.ticket->is_settled()) co_await wakeup_.wait(Deadline::max());
    is_committed = content.ticket->is_committed();
  }
  bool is_bypassing = !is_committed && !content.is_too_large && settings_->config.journal.when_full == WhenFull::bypass;
  if (is_bypassing) {
    worker_.shared.bypassed.fetch_add(1, std::memory_order_relaxed);
    log(LogLevel::error, "bypass", {{"session", id_}, {"from", transaction_.mail_from}, {"problem", "passed WITHOUT a journal entry: " + content.ticket->error().message}});
  }
  Reply verdict;
  if (upstream_ && (is_committed || is_bypassing)) {
    if (!is_parallel || !is_committed) send_end(content);
    std::string failure;
    std::optional<Reply> reply = co_await final_reply(failure);
    if (reply) {
      verdict = std::move(*reply);
      ++upstream_->transactions;
      if (!verdict.is_positive()) upstream_->may_be_reused = false;
    } else {
      worker_.pool.failed(*settings_, route_, upstream_->address, failure);
      verdict = own_verdict();
      upstream_.reset();
    }
  } else {
    verdict = own_verdict();
    upstream_.reset();
  }
  if (is_committed) record_outcome(content.ticket->id(), verdict);
  log_message(is_committed ? content.ticket->id() : 0, content.draft.size(), verdict);
  client_.write(verdict.wire);
  if (verdict.is_positive()) commands_ = 0;
  bool is_farewell = verdict.code == 421;
  end_transaction();
  is_over_ = is_over_ || is_farewell;
  co_return Next::go_on;
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

Task<std::optional<Reply>> Session::final_reply(std::string& failure) {
  Deadline due = after(limits().timeouts.data_end);
  std::optional<Reply> reply = co_await upstream_->read_reply(wakeup_, due);
  if (reply && reply->code >= 300 && reply->code < 400) {
    failure = "it sent an intermediate reply where none belongs";
    co_return std::nullopt;
  }
  if (!reply) failure = upstream_->failure;
  co_return reply;
}

journal::MessageRecord Session::make_record() const {
  journal::MessageRecord record;
  record.time_us = journal::now_us();
  record.direction = listener_.role == Role::submission ? journal::Direction::outbound : journal::Direction::inbound;
  record.session = id_;
  record.route = route().name;
  record.client = to_string(facts_.client);
  record.helo = helo_;
  record.tls = client_.tls_description();
  record.auth = auth_;
  record.mail_from = transaction_.mail_from;
  record.mail_params = transaction_.mail_params;
  record.recipients = transaction_.recipients;
  HeaderFields fields = read_header_fields(content_->draft.beginning());
  record.message_id = std::move(fields.message_id);
  record.subject = std::move(fields.subject);
  return record;
}

void Session::record_outcome(journal::RecordId entry, const Reply& reply) {
  journal::OutcomeRecord outcome;
  outcome.time_us = journal::now_us();
  outcome.entry = entry;
  outcome.changes.push_back({journal::OutcomeRecord::every_pending, outcome_of(reply), reply.summary()});
  worker_.shared.journal.writer().submit_record(journal::RecordKind::outcome, journal::encode(outcome));
}

void Session::log_message(journal::RecordId entry, std::uint64_t size, const Reply& reply) {
  if (!is_logged(LogLevel::info)) return;
  std::string first = transaction_.recipients.empty() ? "" : transaction_.recipients.front().address;
  log(LogLevel::info, "message",
      {{"session", id_}, {"entry", entry}, {"client", to_string(facts_.client)}, {"from", transaction_.mail_from}, {"to", first},
       {"recipients", transaction_.recipients.size()}, {"size", size}, {"outcome", journal::to_string(outcome_of(reply))},
       {"reply", reply.summary()}});
}

void Session::end_transaction() {
  content_.reset();
  transaction_.reset();
}

}  // namespace holdfast::proxy
