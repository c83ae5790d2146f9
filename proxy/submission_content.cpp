// SubmissionSession: the content that a person sends, from DATA to the queue.
#include <fmt/format.h>

#include <algorithm>

#include "proxy/careless_header.h"
#include "proxy/content.h"
#include "proxy/header_fields.h"
#include "proxy/log.h"
#include "proxy/mime.h"
#include "proxy/submission_session.h"

namespace holdfast::proxy {
namespace {

constexpr std::size_t longest_header = 256 * 1024;
/// Mail programs and rules can file a returned copy by it.
constexpr std::string_view return_field = "X-Holdfast-Sent: from the emergency mailbox\r\n";

}  // namespace

/// One entry: the message for the recipients of one route, or the copy that returns to the sender.
struct SubmissionSession::Outgoing {
  Outgoing(Worker& worker, Wakeup& wakeup, std::size_t the_route)
      : ticket(std::make_shared<LoopTicket>(worker.loop, wakeup)), draft(worker.shared.journal.writer(), ticket), route(the_route) {}
  ~Outgoing() { ticket->forget(); }

  std::shared_ptr<LoopTicket> ticket;
  journal::Draft draft;
  std::size_t route;
  bool is_return = false;
};

/// Content into all drafts. False when the connection is over; refusal is what the client is told then or at
/// the end.
Task<bool> SubmissionSession::read_content(std::vector<std::unique_ptr<Outgoing>>& all, std::string& header, std::string& refusal) {
  ContentDecoder decoder;
  bool has_header = false;
  Deadline due = worker_.loop.now() + settings_->config.limits.timeouts.data_block;
  auto take = [&](std::string_view piece) {
    if (!refusal.empty()) return;
    if (!has_header) {
      std::size_t seen = header.size() - std::min<std::size_t>(header.size(), 3);
      header += piece;
      std::size_t end = header.starts_with("\r\n") ? 0 : header.find("\r\n\r\n", seen);
      has_header = end != std::string::npos;
      if (has_header) header.resize(end == 0 ? 2 : end + 4);
      if (header.size() > longest_header) refusal = "552 5.3.4 The header is too large";
    }
    for (const auto& one : all) one->draft.append(piece);
    if (all.front()->draft.size() > settings_->config.limits.message_size) refusal = "552 5.3.4 Message size exceeds fixed limit";
  };
  for (;;) {
    bool is_blocked = std::any_of(all.begin(), all.end(), [](const auto& one) { return one->draft.is_flooded(); });
    if (!is_blocked && !stream_.input().empty()) {
      std::size_t consumed = 0;
      ContentDecoder::Verdict verdict = decoder.feed(stream_.input(), consumed, take);
      stream_.consume(consumed);
      due = worker_.loop.now() + settings_->config.limits.timeouts.data_block;
      if (verdict == ContentDecoder::Verdict::end) co_return true;
      if (verdict == ContentDecoder::Verdict::bare_newline) {
        reply(521, "5.5.2 Error: bare <CR> or <LF> received");
        co_return false;
      }
      continue;
    }
    if (!stream_.is_alive()) co_return false;
    bool in_time = co_await wakeup_.wait(due);
    if (!in_time) {
      reply(421, "4.4.2 Error: timeout exceeded");
      co_return false;
    }
  }
}

/// Why a message with this header is not sent: nobody writes in another's name. Empty when it may go.
std::string SubmissionSession::refusal_of(const std::string& header) const {
  std::size_t from_fields = 0;
  bool is_too_long = false;
  std::vector<std::string> foreign;
  each_field(header, [&](std::string_view name, std::string_view field) {
    bool is_from = is_same_name(name, "From");
    from_fields += is_from;
    if (!is_from && !is_same_name(name, "Sender")) return;
    is_too_long |= field.size() > longest_field_value;
    if (is_too_long) return;
    std::string_view value = field.substr(field.find(':') + 1);
    for (const MailAddress& one : parse_addresses(std::string(value))) {
      std::string address = one.mailbox + "@" + one.host;
      bool is_group = one.host.empty();
      if (!is_group && !is_own(address)) foreign.push_back(address);
      if (is_group && !one.mailbox.empty()) foreign.push_back(one.mailbox);
    }
    // Another reader may make another list of what is not well-formed.
    for (const std::string& word : words_with_at_sign(value))
      if (!is_own(word)) foreign.push_back(word);
  });
  if (from_fields != 1) return "554 5.6.0 The message must have one From field";
  if (is_too_long) return "554 5.6.0 The From or Sender field is too long";
  if (!foreign.empty()) return fmt::format("553 5.7.1 {}: not one of your addresses", printable(foreign.front()));
  bool has_address = !parse_addresses(field_of(header, "From")).empty();
  return has_address ? "" : "554 5.6.0 The From field has no address";
}

Task<void> SubmissionSession::data() {
  if (recipients_.empty()) {
    error(is_open_ ? 554 : 503, "5.5.1 Error: no valid recipients");
    co_return;
  }
  std::vector<std::unique_ptr<Outgoing>> all;
  auto outgoing = [&](std::size_t route) {
    all.push_back(std::make_unique<Outgoing>(worker_, wakeup_, route));
    return all.back().get();
  };
  for (const Recipient& one : recipients_)
    if (std::none_of(all.begin(), all.end(), [&](const auto& other) { return other->route == one.route; })) outgoing(one.route);
  if (gets_copy()) {
    Outgoing* copy = outgoing(route_of(person_));
    copy->is_return = true;
    copy->draft.append(return_field);
  }
  reply(354, "End data with <CR><LF>.<CR><LF>");
  stream_.flush();
  std::string header, refusal;
  bool is_whole = co_await read_content(all, header, refusal);
  is_over_ = !is_whole;
  if (is_whole && person_.empty()) refusal = "550 5.7.1 Your account was changed: log in again";
  if (is_whole && refusal.empty()) refusal = refusal_of(header);
  if (is_whole && !refusal.empty()) {
    ++errors_;
    stream_.write(refusal + "\r\n");
    log(LogLevel::warning, "refused", {{"session", id_}, {"person", person_}, {"reason", refusal}});
  }
  // The person may have written much in other sessions meanwhile.
  if (is_whole && refusal.empty() && may_write_to(recipients_.size())) {
    const std::string person = person_;  // who may be shut out meanwhile
    const std::size_t recipients = recipients_.size();
    service_.pace.sent(person, recipients, worker_.loop.now());
    bool is_committed = co_await commit(all);
    if (!is_committed) service_.pace.not_sent(person, recipients);
    if (is_committed) commands_ = 0;
    if (is_committed)
      reply(250, fmt::format("2.0.0 Ok: taken as {}", all.front()->ticket->id()));
    else
      reply(452, "4.3.1 Insufficient system storage");
  }
  reset();
}

journal::MessageRecord SubmissionSession::make_record(const Outgoing& outgoing, std::string_view beginning) const {
  journal::MessageRecord record;
  record.time_us = journal::now_us();
  record.direction = journal::Direction::outbound;
  record.session = outgoing.is_return ? std::string(failover::return_session) : id_;
  record.route = settings_->config.routes[outgoing.route].name;
  record.client = to_string(client_);
  record.server = to_string(server_);
  record.helo = helo_;
  record.protocol = stream_.is_tls() ? "ESMTPSA" : "ESMTPA";
  record.tls = stream_.tls_description();
  record.auth = "PLAIN";
  record.mail_from = outgoing.is_return ? "" : mail_from_;
  record.mail_params = mail_params_;
  for (const Recipient& one : recipients_)
    if (!outgoing.is_return && one.route == outgoing.route) record.recipients.push_back({one.address, one.params, "", journal::Outcome::held});
  if (outgoing.is_return) record.recipients.push_back({person_, "NOTIFY=NEVER", "", journal::Outcome::held});
  HeaderFields fields = read_header_fields(beginning);
  record.message_id = std::move(fields.message_id);
  record.subject = std::move(fields.subject);
  return record;
}

/// All entries or none. True when they are on the disk.
Task<bool> SubmissionSession::commit(std::vector<std::unique_ptr<Outgoing>>& all) {
  std::vector<journal::MessageRecord> records;
  std::vector<journal::Draft::Ending> endings;
  for (const auto& one : all) {
    records.push_back(make_record(*one, one->draft.beginning()));
    endings.push_back({&one->draft, records.back()});
  }
  journal::Draft::finish_together(std::move(endings));
  for (const auto& one : all)
    while (!one->ticket->is_settled()) co_await wakeup_.wait(Deadline::max());
  bool is_committed = all.front()->ticket->is_committed();
  for (std::size_t i = 0; i < all.size() && is_committed; ++i) {
    const Outgoing& one = *all[i];
    std::vector<HeldRecipient> held;
    for (std::uint32_t k = 0; k < records[i].recipients.size(); ++k) held.push_back({k, records[i].recipients[k].address});
    worker_.shared.control.hold(worker_.shared.control.board(records[i].route), one.ticket->id(), records[i].time_us, std::move(held));
    log(LogLevel::info, "submitted",
        {{"session", id_},
         {"entry", one.ticket->id()},
         {"person", person_},
         {"route", records[i].route},
         {"recipients", records[i].recipients.size()},
         {"return", one.is_return}});
  }
  co_return is_committed;
}

}  // namespace holdfast::proxy
