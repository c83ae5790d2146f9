// A courier: one connection to a route's upstream, over which held entries are delivered one after the other.
//
// Where the primary pipelines, the next entry's envelope goes out with the end of this one's content (RFC 2920 3.1): a message
// costs one round trip, not two.
#pragma once

#include <functional>
#include <memory>

#include "failover/hold_queue.h"
#include "journal/journal.h"
#include "proxy/content.h"
#include "proxy/upstream.h"

namespace holdfast::proxy {

/// What came of it, recipient by recipient.
struct DeliveryResult {
  std::string connection_failure;  ///< not empty: what has no verdict is to be tried again
  bool was_interrupted = false;    ///< the connection was there, and was lost
  bool may_have_arrived = false;   ///< the end of the message was sent, and its answer was lost
  bool tells_of_success = true;    ///< the primary honours NOTIFY=SUCCESS itself
  struct Verdict {
    std::uint32_t recipient;
    Reply reply;
  };
  std::vector<Verdict> verdicts;  ///< none for recipients that were too many for this transaction
};

/// What is sent as content, frame by frame. Only the last frame may be empty, when it is the only one.
struct Payload {
  std::uint64_t size;
  std::uint32_t frames;
  std::function<Result<std::optional<std::string>>(std::uint32_t index)> frame;
};
/// Lines mean nothing in its content (RFC 3030 3).
bool is_binary(const journal::MessageRecord& message);
/// The content of an entry, as read_frame gives it.
Payload payload_of(const journal::Entry& entry, std::function<Result<std::optional<std::string>>(std::uint32_t index)> read_frame);

/// One entry on its way to some of its recipients.
struct Errand {
  Errand(failover::HoldQueue::Delivery what, journal::Entry from) : delivery(std::move(what)), entry(std::move(from)) {}
  failover::HoldQueue::Delivery delivery;
  journal::Entry entry;
  Payload payload;
  bool adds_received_line = true;
  std::chrono::seconds waited{0};  ///< in a hold: taken off the times that its parameters name
  DeliveryResult result;

  /// The delivery to those whom no verdict names.
  failover::HoldQueue::Delivery unanswered() const;

 private:
  friend class Courier;
  std::string received_line;
  std::optional<std::string> only_frame;  ///< small content that was read already
  std::vector<std::string> lines;         ///< MAIL, RCPT and DATA
  std::optional<Reply> refusal;           ///< of MAIL, and so of all recipients
  std::vector<std::uint32_t> accepted;
  bool is_data(std::size_t line) const { return !uses_bdat && line + 1 == lines.size(); }
  bool uses_bdat = false, is_announced = false, is_asked = false;
  bool is_unfit = false;  ///< this primary takes no content like this
  bool follows = false;   ///< its envelope went out before the primary had answered for the message ahead of it
};

class Courier {
 public:
  /// All references must outlive the courier.
  Courier(UpstreamPool& pool, Loop& loop, Wakeup& wakeup) : pool_(pool), loop_(loop), wakeup_(wakeup) {}
  /// The connection goes back to the pool, unless something is under way on it.
  ~Courier();

  /// What whoever sends the courier does in a delivery.
  struct Occasions {
    /// Asked once, when the next envelope could go out: what follows, or null. It is to be delivered next, or the courier sent away.
    std::function<Errand*()> next;
    /// The end of the message is about to go out: from now on the primary may have it.
    std::function<void()> at_end = [] {};
    /// The primary has the message, and nothing else is to be done.
    std::function<void()> meanwhile = [] {};
  };
  /// Brings to memory what a delivery will need of the journal, and writes its envelope. For an entry that comes later on the same
  /// connection, while the primary is at work on another; only once a delivery on it has begun.
  void prepare(Errand& errand);

  /// Delivers with the original envelope, and with one Received line on top if so asked. What came of it is in errand.result.
  Task<void> deliver(Errand& errand, const Opening& opening, const Occasions& occasions);

 private:
  const TimeoutsConfig& timeouts() const { return opening_->timeouts(); }
  Deadline after(Duration duration) const { return loop_.now() + duration; }
  void fail(Errand& errand, const std::string& why);
  void give_all(Errand& errand, const Reply& reply);
  void give_back();
  bool may_follow() const;
  Task<bool> open(Errand& errand);
  void announce(Errand& errand);
  Task<bool> envelope(Errand& errand);
  bool take_reply(Errand& errand, std::size_t line, const Reply& reply);
  void start_over(Errand& errand);
  static bool has_bare_newlines(Errand& errand);
  bool must_be_exact(Errand& errand);
  Task<void> content(Errand& errand, const Occasions& occasions);
  Task<void> take_verdicts(Errand& errand);
  void send(const Errand& errand, ContentEncoder& encoder, std::string_view piece);

  UpstreamPool& pool_;
  Loop& loop_;
  Wakeup& wakeup_;
  std::optional<Opening> opening_;
  std::unique_ptr<Upstream> upstream_;
  bool is_busy_ = false;  ///< an envelope is out whose content is not
};

}  // namespace holdfast::proxy
