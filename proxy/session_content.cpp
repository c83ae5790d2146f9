// How a session relays content: from the client into the journal and to the primary, with back-pressure from whichever is
// slower. What becomes of the whole is in session_verdict.cpp.

#include "proxy/session_content.h"

#include <fmt/format.h>

#include <algorithm>

#include "proxy/log.h"

namespace holdfast::proxy {
namespace {

/// A client that sends less than this in the time for a block is too slow, however steady.
constexpr std::size_t least_progress = 1024;
/// Pieces that are smaller are gathered: the lines of a message whose lines all begin with a dot come one by one.
constexpr std::size_t least_sent_alone = 4096;

}  // namespace

void Session::begin_content() {
  if (!content_) content_ = std::make_unique<Content>(worker_, wakeup_);
}

/// Of a message: Holdfast's own and, while it answers in the primary's place, the primary's, which would not take more afterwards.
std::uint64_t Session::size_limit() const {
  if (!is_holding_) return limits().message_size;
  std::optional<Reply> ehlo = board_->ehlo();
  std::optional<std::string> words;
  if (ehlo) words = Capabilities::of(*ehlo).words_of("SIZE");
  std::uint64_t of_primary = words ? parse_number(*words).value_or(0) : 0;
  return of_primary > 0 ? std::min(limits().message_size, of_primary) : limits().message_size;
}

/// One piece of decoded content: into the draft, and to the primary when the content is too large to be kept back.
void Session::take_content(std::string_view piece) {
  Content& content = *content_;
  if (piece.empty() || content.is_too_large) return;
  if (content.draft.size() + piece.size() > size_limit()) {
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
  if (piece.size() >= least_sent_alone && content_->encoder.is_plain(piece)) {
    content_->encoder.skip(piece);
    upstream_->stream.flush(piece);
    return;
  }
  std::string stuffed;
  content_->encoder.feed(piece, stuffed);
  upstream_->stream.write(stuffed);
}

/// The primary may say something, or go, before it has everything.
void Session::watch_upstream() {
  if (!upstream_) return;
  Reply reply;
  std::size_t consumed = 0;
  ReplyParser::State state = ReplyParser().parse(upstream_->stream.input(), reply, consumed);
  if (state == ReplyParser::State::incomplete && upstream_->stream.is_alive()) return;
  bool is_refusal = state == ReplyParser::State::complete && reply.code != 421 && (reply.is_transient() || reply.is_permanent());
  if (is_refusal) {
    content_->early_reply = std::move(reply);
  } else {
    // The rest of the content goes into the journal, and from there to wherever the primary is then.
    content_->lost_why = "it went away in the middle of a message";
    worker_.pool.broke_off(*settings_, route_, upstream_->address, content_->lost_why);
  }
  upstream_.reset();
}

/// Whether the journal or the primary is behind: nothing more is taken from the client then.
bool Session::is_flooded() const { return (content_ && content_->draft.is_flooded()) || (upstream_ && upstream_->stream.is_flooded()); }

/// Waits for more of the content, or for room to put it. False when the session must end.
///
/// @param taken  bytes so far
Task<bool> Session::wait_for_content(Progress& progress, std::uint64_t taken) {
  if (client_.is_broken() || (client_.is_ended() && client_.input().empty())) co_return false;
  if (taken - progress.taken >= least_progress) progress = {after(limits().timeouts.data_block), taken};
  bool in_time = co_await wakeup_.wait(progress.due);
  if (in_time) co_return true;
  say_goodbye(421, fmt::format("4.4.2 {} Error: timeout exceeded", hostname()));
  co_return false;
}

Task<Session::Next> Session::relay_data() {
  begin_content();
  Content& content = *content_;
  Progress progress{after(limits().timeouts.data_block)};
  for (;;) {
    watch_upstream();
    if (is_flooded() || client_.input().empty()) {
      bool goes_on = co_await wait_for_content(progress, content.draft.size());
      if (!goes_on) co_return abandon_content();
      continue;
    }
    std::size_t consumed = 0;
    ContentDecoder::Verdict verdict = content.decoder.feed(client_.input(), consumed, [this](std::string_view piece) { take_content(piece); });
    client_.consume(consumed);
    if (upstream_) upstream_->stream.flush();
    if (verdict == ContentDecoder::Verdict::bare_newline) {
      refuse_bare_newline();
      co_return Next::close;
    }
    if (verdict == ContentDecoder::Verdict::end) break;
  }
  Next next = co_await finish_content(content);
  co_return next;
}

/// A chunk. The last one is kept back, whole or but for its last byte, until the commit.
Task<Session::Next> Session::relay_bdat(BdatCommand chunk, std::string line) {
  // The one that offered chunks may have gone since, and another be there.
  bool is_for_another = (content_ && content_->is_orphaned) || !takes_chunks();
  if (is_for_another) upstream_.reset();
  if (transaction_.has_accepted_recipients()) begin_content();
  if (content_) content_->is_bdat = true;
  bool keeps_all = chunk.is_last && chunk.size <= journal::frame_plain_size;
  std::string held = keeps_all ? line : "";
  if (!keeps_all && upstream_) upstream_->stream.write(line);
  Next next = co_await read_chunk(chunk, keeps_all, held);
  if (next == Next::close) co_return next;
  if (!chunk.is_last || !content_) {
    next = co_await finish_chunk(held, chunk.size);
    co_return next;
  }
  if (!transaction_.is_binary && !content_->newlines.is_whole()) {
    refuse_bare_newline();
    co_return Next::close;
  }
  content_->held_back = std::move(held);
  next = co_await finish_content(*content_);
  co_return next;
}

/// Takes the bytes of a chunk, which are counted, not searched. What must wait for the commit is put into `held`.
Task<Session::Next> Session::read_chunk(BdatCommand chunk, bool keeps_all, std::string& held) {
  Progress progress{after(limits().timeouts.data_block)};
  for (std::uint64_t left = chunk.size; left > 0;) {
    if (content_) watch_upstream();
    if (is_flooded() || client_.input().empty()) {
      bool goes_on = co_await wait_for_content(progress, chunk.size - left);
      if (!goes_on) co_return abandon_content();
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
  co_return Next::go_on;
}

/// A chunk that ends nothing, or that belongs to no transaction: the primary's word on it is the client's.
Task<Session::Next> Session::finish_chunk(const std::string& held, std::uint64_t chunk_size) {
  if (!content_ && !upstream_) {
    client_.write(own_reply(transaction_.is_open ? 554 : 503, "5.5.1 Error: no valid recipients"));
    co_return Next::go_on;
  }
  if (content_ && !upstream_ && is_void(*content_)) {
    // Too large, journal failed, or the primary spoke early: the client learns it now, the rest of the series is void.
    Reply reply = own_verdict();
    client_.write(reply.wire);
    end_transaction();
    co_return Next::go_on;
  }
  std::optional<Reply> reply;
  if (upstream_) {
    upstream_->stream.flush(held);
    std::string failure;
    reply = co_await final_reply(failure);
    if (!reply) {
      worker_.pool.broke_off(*settings_, route_, upstream_->address, failure);
      upstream_.reset();
      if (content_) content_->lost_why = failure;
    }
  }
  bool is_taken_for_nobody = reply && !content_ && reply->is_positive();
  if (is_taken_for_nobody || (!reply && !content_)) {
    // It takes content for recipients that it refused: nothing of this was journaled, so it may not be acknowledged.
    upstream_.reset();
    client_.write(own_reply(554, "5.5.1 Error: no valid recipients"));
    co_return Next::go_on;
  }
  if (!reply) {
    // The primary is away: the chunk is in the journal, and the end of the series decides.
    client_.write(StandIn::chunk_taken(chunk_size).wire);
    co_return Next::go_on;
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
  log(LogLevel::warning, "refused",
      {{"session", id_}, {"client", to_string(facts_.client)}, {"from", transaction_.mail_from}, {"reason", "bare CR or LF in the content"}});
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

void Session::end_transaction() {
  content_.reset();
  transaction_.reset();
  has_faltered_ = false;
}

}  // namespace holdfast::proxy
