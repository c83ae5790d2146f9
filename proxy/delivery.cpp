#include "proxy/delivery.h"

#include <fmt/format.h>

#include <algorithm>

#include "failover/notification.h"
#include "proxy/address.h"
#include "proxy/content.h"

namespace holdfast::proxy {
namespace {

/// The parameters that the primary offers; SIZE is written anew, since a line is added.
std::string offered_params(std::string_view params, const Capabilities& capabilities) {
  std::string line = fmt::format("TO:<> {}", params);  // what is parsed out of it are views of it
  std::optional<EnvelopeCommand> command = parse_envelope(line, "TO:");
  std::string kept;
  if (!command) return kept;
  for (const Parameter& parameter : command->parameters) {
    EnvelopeCommand one{{}, {}, {parameter}};
    if (parameter.key == "SIZE" || parameter.key == "AUTH" || first_unoffered(one, &capabilities)) continue;
    kept += ' ';
    kept += parameter.text;
  }
  return kept;
}

/// One run of deliver(); its parts share what has been found out so far.
class Run {
 public:
  Run(UpstreamPool& pool, Loop& loop, journal::Journal& journal, const Opening& opening, const journal::Entry& entry,
      const std::vector<std::uint32_t>& recipients, Wakeup& wakeup)
      : pool_(pool), loop_(loop), journal_(journal), opening_(opening), entry_(entry), recipients_(recipients), wakeup_(wakeup) {}

  Task<DeliveryResult> run() {
    bool is_open = co_await open();
    if (!is_open) co_return std::move(result_);
    bool may_send = co_await envelope();
    if (may_send) co_await content();
    if (upstream_ && upstream_->stream.is_alive()) {
      ++upstream_->transactions;
      pool_.give_back(opening_.settings, opening_.route, std::move(upstream_));
    }
    co_return std::move(result_);
  }

 private:
  const TimeoutsConfig& timeouts() const { return opening_.timeouts(); }
  Deadline after(Duration duration) const { return loop_.now() + duration; }

  void fail(const std::string& why) {
    result_.connection_failure = why;
    result_.verdicts.clear();
    if (upstream_) pool_.failed(*opening_.settings, opening_.route, upstream_->address, why);
    upstream_.reset();
  }

  void give_all(const Reply& reply) {
    for (std::uint32_t one : accepted_) result_.verdicts.push_back({one, reply});
    accepted_.clear();
  }

  Task<bool> open() {
    UpstreamPool::Opened opened = co_await pool_.open(opening_, wakeup_, false);
    if (!opened.upstream) {
      fail(opened.failure);
      co_return false;
    }
    upstream_ = std::move(opened.upstream);
    bool must_greet = !upstream_->own_capabilities || opening_.config().identity == Identity::xclient;
    if (must_greet) {
      Capabilities capabilities;
      std::string failure = co_await pool_.greet_as_self(*upstream_, opening_, capabilities, wakeup_);
      if (!failure.empty()) {
        fail(failure);
        co_return false;
      }
      upstream_->own_capabilities = std::move(capabilities);
    }
    result_.tells_of_success = upstream_->own_capabilities->has("DSN");
    co_return true;
  }

  /// MAIL, RCPT and DATA, in one batch where the primary takes that. True when content may follow.
  Task<bool> envelope() {
    const Capabilities& offers = *upstream_->own_capabilities;
    const journal::MessageRecord& message = entry_.message;
    std::string for_recipient = recipients_.size() == 1 ? message.recipients[recipients_.front()].address : std::string();
    received_ = failover::received_line(entry_, opening_.settings->config.hostname, for_recipient);
    std::string size = offers.has("SIZE") ? fmt::format(" SIZE={}", message.size + received_.size()) : std::string();
    uses_bdat_ = offers.has("CHUNKING") && must_be_exact();
    std::vector<std::string> lines;
    lines.push_back(fmt::format("MAIL FROM:<{}>{}{}\r\n", message.mail_from, size, offered_params(message.mail_params, offers)));
    for (std::uint32_t one : recipients_) {
      const journal::Recipient& recipient = message.recipients[one];
      lines.push_back(fmt::format("RCPT TO:<{}>{}\r\n", recipient.address, offered_params(recipient.params, offers)));
    }
    if (!uses_bdat_) lines.emplace_back("DATA\r\n");
    bool is_batch = offers.has("PIPELINING");
    if (is_batch) {
      for (const std::string& line : lines) upstream_->stream.write(line);
      upstream_->stream.flush();
    }
    std::optional<Reply> refusal;
    for (std::size_t i = 0; i < lines.size(); ++i) {
      if (!is_batch) upstream_->stream.flush(lines[i]);
      bool is_mail = i == 0, is_data = !uses_bdat_ && i + 1 == lines.size();
      std::optional<Reply> reply = co_await upstream_->read_reply(wakeup_, after(is_mail ? timeouts().mail : is_data ? timeouts().data_start : timeouts().rcpt));
      if (!reply) {
        fail(upstream_->failure);
        co_return false;
      }
      if (reply->code == 421) {
        fail("it says " + reply->summary());
        co_return false;
      }
      if (is_mail) {
        if (!reply->is_positive()) refusal = *reply;
      } else if (!is_data) {
        std::uint32_t one = recipients_[i - 1];
        if (refusal)
          result_.verdicts.push_back({one, *refusal});
        else if (reply->is_positive())
          accepted_.push_back(one);
        else
          result_.verdicts.push_back({one, *reply});
      } else if (reply->code == 354) {
        is_asked_ = true;
      } else if (!accepted_.empty()) {
        give_all(*reply);
      }
      bool is_over = !is_batch && refusal;
      if (is_over) {
        for (std::uint32_t rest : recipients_) result_.verdicts.push_back({rest, *refusal});
        break;
      }
    }
    if (!accepted_.empty()) co_return uses_bdat_ || is_asked_;
    if (is_asked_) {
      // It wants content although nobody is to get it: an unfinished message is no message.
      upstream_.reset();
      co_return false;
    }
    upstream_->stream.flush("RSET\r\n");
    std::optional<Reply> reply = co_await upstream_->read_reply(wakeup_, after(timeouts().command));
    if (!reply) upstream_.reset();
    co_return false;
  }

  /// Content that DATA could not carry bit for bit: binary, or without a line end at its end.
  bool must_be_exact() {
    bool is_binary = upper(entry_.message.mail_params).find("BODY=BINARYMIME") != std::string::npos;
    if (is_binary) return true;
    std::uint64_t frames = entry_.message.size / journal::frame_plain_size;
    if (frames > 0 && entry_.message.size % journal::frame_plain_size == 0) --frames;
    auto last = journal_.frame(entry_, static_cast<std::uint32_t>(frames));
    bool is_exact = last && *last && !(*last)->empty() && !(*last)->ends_with("\r\n");
    if (frames == 0 && last) only_frame_ = std::move(*last);
    return is_exact;
  }

  Task<void> content() {
    ContentEncoder encoder;
    if (uses_bdat_) upstream_->stream.write(fmt::format("BDAT {} LAST\r\n", entry_.message.size + received_.size()));
    send(encoder, received_);
    for (std::uint32_t index = 0;; ++index) {
      bool has_it = index == 0 && only_frame_;
      auto frame = has_it ? Result(std::exchange(only_frame_, std::nullopt)) : journal_.frame(entry_, index);
      if (!frame) {
        // Half a message must not become one.
        upstream_.reset();
        Reply reply;
        reply.code = 451;
        reply.wire = own_reply(451, "4.3.0 " + frame.error().message);
        give_all(reply);
        co_return;
      }
      if (!*frame) break;
      send(encoder, **frame);
      Deadline due = after(timeouts().data_block);
      while (upstream_->stream.is_flooded() && upstream_->stream.is_alive()) {
        bool in_time = co_await wakeup_.wait(due);
        if (!in_time && loop_.now() >= due) {
          fail("it does not take the content in time");
          co_return;
        }
      }
    }
    if (!uses_bdat_) upstream_->stream.write(encoder.end());
    upstream_->stream.flush();
    std::optional<Reply> reply = co_await upstream_->read_reply(wakeup_, after(timeouts().data_end));
    if (reply && reply->code != 421) {
      give_all(*reply);
      co_return;
    }
    result_.may_have_arrived = !reply;
    fail(reply ? "it says " + reply->summary() : upstream_->failure);
  }

  void send(ContentEncoder& encoder, std::string_view piece) {
    if (uses_bdat_ || encoder.is_plain(piece)) {
      encoder.skip(piece);
      upstream_->stream.write(piece);
    } else {
      std::string stuffed;
      encoder.feed(piece, stuffed);
      upstream_->stream.write(stuffed);
    }
    if (upstream_->stream.unsent() > journal::frame_plain_size) upstream_->stream.flush();
  }

  UpstreamPool& pool_;
  Loop& loop_;
  journal::Journal& journal_;
  const Opening& opening_;
  const journal::Entry& entry_;
  const std::vector<std::uint32_t>& recipients_;
  Wakeup& wakeup_;
  std::unique_ptr<Upstream> upstream_;
  std::vector<std::uint32_t> accepted_;
  std::string received_;
  std::optional<std::string> only_frame_;  ///< small content that was read already
  bool uses_bdat_ = false, is_asked_ = false;
  DeliveryResult result_;
};

}  // namespace

Task<DeliveryResult> deliver(UpstreamPool& pool, Loop& loop, journal::Journal& journal, const Opening& opening,
                             const journal::Entry& entry, const std::vector<std::uint32_t>& recipients, Wakeup& wakeup) {
  Run run(pool, loop, journal, opening, entry, recipients, wakeup);
  DeliveryResult result = co_await run.run();
  co_return result;
}

}  // namespace holdfast::proxy
