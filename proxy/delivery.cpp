#include "proxy/delivery.h"

#include <fmt/format.h>

#include <algorithm>

#include "failover/notification.h"
#include "proxy/address.h"
#include "proxy/content.h"
#include "proxy/parameters.h"

namespace holdfast::proxy {

bool is_binary(const journal::MessageRecord& message) { return upper(message.mail_params).find("BODY=BINARYMIME") != std::string::npos; }

Payload payload_of(const journal::Entry& entry, std::function<Result<std::optional<std::string>>(std::uint32_t index)> read_frame) {
  std::uint64_t frames = std::max<std::uint64_t>(1, (entry.message.size + journal::frame_plain_size - 1) / journal::frame_plain_size);
  return {entry.message.size, static_cast<std::uint32_t>(frames), std::move(read_frame)};
}

Courier::~Courier() { give_back(); }

void Courier::give_back() {
  if (upstream_ && upstream_->stream.is_alive() && !is_busy_) pool_.give_back(opening_->settings, opening_->route, std::move(upstream_));
  upstream_.reset();
}

void Courier::fail(Errand& errand, const std::string& why) {
  errand.result.connection_failure = why;
  if (upstream_) pool_.broke_off(*opening_->settings, opening_->route, upstream_->address, why);
  upstream_.reset();
}

failover::HoldQueue::Delivery Errand::unanswered() const {
  failover::HoldQueue::Delivery rest = delivery;
  for (const DeliveryResult::Verdict& one : result.verdicts) std::erase(rest.recipients, one.recipient);
  return rest;
}

void Courier::give_all(Errand& errand, const Reply& reply) {
  for (std::uint32_t one : errand.accepted) errand.result.verdicts.push_back({one, reply});
  errand.accepted.clear();
}

/// Only over a connection that says nothing of the client, and that has not done its share.
bool Courier::may_follow() const {
  return upstream_->own_capabilities->has("PIPELINING") && opening_->config().identity == Identity::none &&
         pool_.habits().takes_followers(upstream_->room->name) && upstream_->transactions + 1 < opening_->settings->config.reuse.transactions;
}

Task<void> Courier::deliver(Errand& errand, const Opening& opening, const Occasions& occasions) {
  bool may_send = false;
  do {
    if (!errand.is_announced) {
      give_back();
      opening_ = opening;
      bool is_open = co_await open(errand);
      if (!is_open) co_return;
      announce(errand);
      upstream_->stream.flush();
    }
    is_busy_ = true;
    errand.result.tells_of_success = upstream_->own_capabilities->has("DSN");
    may_send = co_await envelope(errand);
    is_busy_ = false;
  } while (!errand.is_announced);
  if (may_send) co_await content(errand, occasions);
  errand.result.was_interrupted = !errand.result.connection_failure.empty();
  if (upstream_) ++upstream_->transactions;
}

Task<bool> Courier::open(Errand& errand) {
  for (;;) {
    UpstreamPool::Opened opened = co_await pool_.open(*opening_, wakeup_);
    if (!opened.upstream) {
      // The primary has been told whose message it is, and wants nothing from that client: its word on the message.
      bool is_unwanted = opened.refusal && opened.refusal->is_about_client() && opening_->config().identity != Identity::none;
      if (!is_unwanted) fail(errand, opened.failure);
      if (is_unwanted)
        for (std::uint32_t one : errand.delivery.recipients) errand.result.verdicts.push_back({one, *opened.refusal});
      co_return false;
    }
    upstream_ = std::move(opened.upstream);
    std::string failure = co_await pool_.greet_as_self(*upstream_, *opening_, wakeup_);
    if (failure.empty()) co_return true;
    // A connection that a client had may have ended, or take no second greeting.
    if (!upstream_->was_reused) {
      fail(errand, failure);
      co_return false;
    }
    upstream_.reset();
    opening_->is_fresh = true;
  }
}

/// The lines of the envelope as this primary takes them, and the content if it is small.
void Courier::prepare(Errand& errand) {
  if (!errand.lines.empty()) return;
  if (errand.payload.frames == 1) {
    auto only = errand.payload.frame(0);
    if (only) errand.only_frame = std::move(*only);
  }
  const Capabilities& offers = *upstream_->own_capabilities;
  const journal::MessageRecord& message = errand.entry.message;
  const std::vector<std::uint32_t>& recipients = errand.delivery.recipients;
  std::string for_recipient = recipients.size() == 1 ? message.recipients[recipients.front()].address : std::string();
  if (errand.adds_received_line) errand.received_line = failover::received_line(errand.entry, opening_->settings->config.hostname, for_recipient);
  // Written anew, since a line is added.
  std::string size = offers.has("SIZE") ? fmt::format(" SIZE={}", errand.payload.size + errand.received_line.size()) : std::string();
  errand.uses_bdat = offers.has("CHUNKING") && must_be_exact(errand);
  errand.is_unfit = !offers.has("CHUNKING") && has_bare_newlines(errand);
  auto said_again = [&](const std::string& params) {
    return params_said_again(offered_params(params, offers, {"SIZE", "AUTH"}), errand.waited, journal::now_us());
  };
  errand.lines.push_back(fmt::format("MAIL FROM:<{}>{}{}\r\n", message.mail_from, size, said_again(message.mail_params)));
  for (std::uint32_t one : recipients) {
    const journal::Recipient& recipient = message.recipients[one];
    errand.lines.push_back(fmt::format("RCPT TO:<{}>{}\r\n", recipient.address, said_again(recipient.params)));
  }
  if (!errand.uses_bdat) errand.lines.emplace_back("DATA\r\n");
}

/// Puts the envelope in front of the primary, unsent, where it takes the lines in one batch.
void Courier::announce(Errand& errand) {
  prepare(errand);
  errand.is_announced = true;
  if (errand.is_unfit || !upstream_->own_capabilities->has("PIPELINING")) return;
  for (const std::string& line : errand.lines) upstream_->stream.write(line);
}

/// Takes the replies to MAIL, RCPT and DATA; one line after the other goes out where the primary does not pipeline. True when content may
/// follow.
Task<bool> Courier::envelope(Errand& errand) {
  if (errand.is_unfit) {
    errand.accepted = errand.delivery.recipients;
    give_all(errand, {451, own_reply(451, "4.6.3 The mail server takes no binary content now (CHUNKING)")});
    co_return false;
  }
  bool is_batch = upstream_->own_capabilities->has("PIPELINING");
  for (std::size_t i = 0; i < errand.lines.size(); ++i) {
    if (!is_batch) upstream_->stream.flush(errand.lines[i]);
    Duration patience = i == 0 ? timeouts().mail : errand.is_data(i) ? timeouts().data_start : timeouts().rcpt;
    std::optional<Reply> reply = co_await upstream_->read_reply(wakeup_, after(patience));
    bool has_said_all = errand.refusal || errand.result.verdicts.size() == errand.delivery.recipients.size();
    bool has_hung_up = !reply || reply->code == 421;
    if (has_said_all && has_hung_up) {
      upstream_.reset();
      break;
    }
    if (!reply) fail(errand, upstream_->failure);
    bool goes_on = reply && take_reply(errand, i, *reply);
    if (!goes_on) co_return false;
    if (errand.refusal && !is_batch) break;
  }
  if (errand.refusal)
    for (std::uint32_t one : errand.delivery.recipients) errand.result.verdicts.push_back({one, *errand.refusal});
  if (!upstream_) co_return false;
  if (!errand.accepted.empty()) co_return errand.uses_bdat || errand.is_asked;
  if (errand.is_asked) {
    // It wants content although nobody is to get it: an unfinished message is no message.
    upstream_.reset();
    co_return false;
  }
  upstream_->stream.flush("RSET\r\n");
  std::optional<Reply> reply = co_await upstream_->read_reply(wakeup_, after(timeouts().command));
  if (!reply) upstream_.reset();
  co_return false;
}

/// What the primary says to a line of the envelope. False when that ends this attempt.
bool Courier::take_reply(Errand& errand, std::size_t line, const Reply& reply) {
  // What came with a refused MAIL, or DATA where all recipients are refused, is out of order then. Otherwise that says nothing of the
  // message, but that the connection is not where it should be.
  bool is_explained = errand.refusal || (errand.is_data(line) && errand.accepted.empty());
  bool is_out_of_order = reply.code == 503 && !is_explained;
  if (is_out_of_order && errand.follows) return start_over(errand), false;
  if (reply.code == 421 || is_out_of_order) return fail(errand, "it says " + reply.summary()), false;
  bool is_refusal = reply.is_transient() || reply.is_permanent();
  if (line == 0) {
    if (!reply.is_positive()) errand.refusal = reply;
  } else if (!errand.is_data(line)) {
    std::uint32_t recipient = errand.delivery.recipients[line - 1];
    bool is_for_next_time = !errand.accepted.empty() && reply.says_too_many();
    if (errand.refusal || is_for_next_time) return true;
    if (reply.is_positive())
      errand.accepted.push_back(recipient);
    else
      errand.result.verdicts.push_back({recipient, reply});
  } else if (reply.code == 354) {
    errand.is_asked = true;
  } else if (!is_refusal) {
    // Nothing was delivered, whatever it says.
    return fail(errand, "it answered DATA with neither 354 nor a refusal: " + reply.summary()), false;
  } else if (!errand.accepted.empty()) {
    give_all(errand, reply);
  }
  return true;
}

/// The primary takes no command before it has answered for a message, though it pipelines (Haraka): no more are sent.
void Courier::start_over(Errand& errand) {
  pool_.habits().takes_no_followers(upstream_->room->name);
  upstream_.reset();
  errand.lines.clear();
  errand.accepted.clear();
  errand.refusal.reset();
  errand.result = DeliveryResult();
  errand.is_announced = errand.is_asked = errand.follows = errand.is_unfit = false;
}

/// Content of which DATA would make something else, or more than one message (RFC 3030 3).
bool Courier::has_bare_newlines(Errand& errand) {
  if (!is_binary(errand.entry.message)) return false;
  NewlineCheck newlines;
  for (std::uint32_t index = 0; index < errand.payload.frames; ++index) {
    auto frame = errand.payload.frame(index);
    if (!frame || !*frame) return false;  // content() tells of that
    if (!newlines.feed(**frame)) return true;
  }
  return !newlines.is_whole();
}

/// Content that DATA could not carry bit for bit: binary, or without a line end at its end.
bool Courier::must_be_exact(Errand& errand) {
  if (is_binary(errand.entry.message)) return true;
  auto last = errand.only_frame ? Result(errand.only_frame) : errand.payload.frame(errand.payload.frames - 1);
  return last && *last && !(*last)->empty() && !(*last)->ends_with("\r\n");
}

Task<void> Courier::content(Errand& errand, const Occasions& occasions) {
  ContentEncoder encoder;
  if (errand.uses_bdat) upstream_->stream.write(fmt::format("BDAT {} LAST\r\n", errand.payload.size + errand.received_line.size()));
  send(errand, encoder, errand.received_line);
  for (std::uint32_t index = 0; index < errand.payload.frames; ++index) {
    bool has_it = index == 0 && errand.only_frame;
    auto frame = has_it ? Result(std::exchange(errand.only_frame, std::nullopt)) : errand.payload.frame(index);
    if (!frame || !*frame) {
      // Half a message must not become one.
      upstream_.reset();
      Reply reply;
      reply.code = 451;
      reply.wire = own_reply(451, "4.3.0 " + (frame ? "the content is not whole" : frame.error().message));
      give_all(errand, reply);
      co_return;
    }
    if (index + 1 == errand.payload.frames) occasions.at_end();
    send(errand, encoder, **frame);
    Deadline due = after(timeouts().data_block);
    while (upstream_->stream.is_flooded() && upstream_->stream.is_alive()) {
      bool in_time = co_await wakeup_.wait(due);
      if (!in_time && loop_.now() >= due) {
        fail(errand, "it does not take the content in time");
        co_return;
      }
    }
  }
  if (!errand.uses_bdat) upstream_->stream.write(encoder.end());
  if (may_follow()) {
    if (Errand* following = occasions.next()) {
      announce(*following);
      following->follows = true;
      is_busy_ = true;
    }
  }
  upstream_->stream.flush();
  if (upstream_->stream.is_alive()) occasions.meanwhile();
  co_await take_verdicts(errand);
}

/// One reply to the whole, or with LMTP one for each recipient that was accepted (RFC 2033 4.2).
Task<void> Courier::take_verdicts(Errand& errand) {
  bool is_lmtp = opening_->config().protocol == Protocol::lmtp;
  while (!errand.accepted.empty()) {
    std::optional<Reply> reply = co_await upstream_->read_reply(wakeup_, after(timeouts().data_end));
    // Unless what was lost is the envelope that follows.
    bool has_lost_some = upstream_->stream.has_lost_output() && !is_busy_;
    if (has_lost_some && reply && reply->is_positive()) {
      fail(errand, "it went away before it had everything, and said " + reply->summary());
      co_return;
    }
    if (!reply || reply->code == 421) {
      errand.result.may_have_arrived = !reply && !has_lost_some;
      fail(errand, reply ? "it says " + reply->summary() : upstream_->failure);
      co_return;
    }
    pool_.lives(*opening_->settings, opening_->route, *upstream_);
    if (!is_lmtp) {
      give_all(errand, *reply);
      co_return;
    }
    errand.result.verdicts.push_back({errand.accepted.front(), *reply});
    errand.accepted.erase(errand.accepted.begin());
  }
}

void Courier::send(const Errand& errand, ContentEncoder& encoder, std::string_view piece) {
  if (errand.uses_bdat || encoder.is_plain(piece)) {
    encoder.skip(piece);
    upstream_->stream.write(piece);
  } else {
    std::string stuffed;
    encoder.feed(piece, stuffed);
    upstream_->stream.write(stuffed);
  }
  if (upstream_->stream.unsent() > journal::frame_plain_size) upstream_->stream.flush();
}

}  // namespace holdfast::proxy
