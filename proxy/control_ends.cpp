// Control's side of how held mail ends: delivered, refused (where that is believed), kept for the operator, or expired; and who is told.
#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <utility>

#include "failover/notification.h"
#include "journal/draft.h"
#include "proxy/command.h"
#include "proxy/control.h"
#include "proxy/log.h"

namespace holdfast::proxy {
namespace {

/// Entries that expire, or whose senders are told of a delay, in one look of ten a second.
constexpr std::size_t expire_step = 200;
/// A whole message goes back with a notification (RET=FULL) up to this size.
constexpr std::uint64_t largest_returned = 1 << 20;

/// Time enough to do something about mail that will expire.
Duration soon(Duration max_hold) { return std::min<Duration>(std::chrono::hours(24), max_hold / 5); }

}  // namespace

Task<void> Control::take_verdicts(ControlledRoute& route, const journal::Entry& entry, const DeliveryResult& result, Wakeup& wakeup) {
  Words delivered, deferred, refused;
  for (const DeliveryResult::Verdict& verdict : result.verdicts) {
    Words& list = verdict.reply.is_positive() ? delivered : verdict.reply.is_permanent() ? refused : deferred;
    list.emplace_back(verdict.recipient, verdict.reply.summary());
  }
  if (entry.message.direction == journal::Direction::inbound) learn_recipients(entry, result);
  bool was_open = route.breaker.is_open();
  if (!delivered.empty()) route.breaker.succeeded(Clock::now());
  for (const auto& [recipient, words] : deferred)
    if (words.find(" 4.3.") == 3) route.breaker.faltered(Clock::now(), words);
  apply_breaker(route, was_open);
  if (!delivered.empty()) regain_trust(route);
  bool is_believed = refused.empty() || !delivered.empty() || route.trust.believes_refusal(route.board.held.load() - route.kept.size());
  if (!is_believed) {
    doubt(route, entry, refused.front().second);
    std::move(refused.begin(), refused.end(), std::back_inserter(deferred));
    refused.clear();
  }
  log(LogLevel::info, "delivery",
      {{"entry", entry.id},
       {"route", route.board.name},
       {"delivered", delivered.size()},
       {"deferred", deferred.size()},
       {"refused", refused.size()},
       {"reply", result.verdicts.empty() ? "" : result.verdicts.back().reply.summary()}});
  if (!deferred.empty()) {
    journal_.writer().submit_record(journal::RecordKind::outcome, journal::encode(outcome_record(entry.id, journal::Outcome::held, deferred)));
    for (const auto& [recipient, words] : deferred) route.queue.defer(entry.id, recipient, words, Clock::now());
  }
  if (!delivered.empty()) {
    settle(route, entry.id, journal::Outcome::delivered, delivered);
    Words wants_to_know;
    for (const auto& one : delivered)
      if (failover::notify_of(entry.message.recipients[one.first].params).success) wants_to_know.push_back(one);
    if (!wants_to_know.empty() && !result.tells_of_success && !entry.message.mail_from.empty() && may_be_told(entry))
      co_await notify(entry, std::move(wants_to_know), failover::Action::relayed, std::nullopt, wakeup);
  }
  if (!refused.empty()) co_await refuse(route, entry, std::move(refused), journal::Outcome::bounced, wakeup);
}

/// It refuses for good what it may not mean: nothing that cannot be undone is done for it. While it takes nothing, new mail is held too.
void Control::doubt(ControlledRoute& route, const journal::Entry& entry, const std::string& reply) {
  bool is_news = route.doubted.empty();
  route.doubted.insert(entry.id);
  if (is_news)
    log(LogLevel::error, "held",
        {{"route", route.board.name},
         {"problem", "it refuses one held message after the other for good: that is not believed, they stay held"},
         {"reply", reply},
         {"remedy", "repair the primary; if it is right: failover.doubt_after: 0, SIGHUP, and holdfast queue retry --all"}});
  if (!route.trust.takes_nothing()) return;
  bool was_open = route.breaker.is_open();
  route.breaker.is_not_itself(Clock::now(), "it is back and takes nothing, one held message after the other is refused for good: " + reply);
  apply_breaker(route, was_open);
}

/// As it comes back anew: of what it refused, others each time, so many that together with what it has not seen they tell how it is.
void Control::try_doubted(ControlledRoute& route) {
  std::size_t enough = config_of(route).doubt_after, unseen = route.queue.size() - std::min(route.queue.size(), route.doubted.size());
  std::size_t wanted = std::min(enough - std::min(enough, unseen), route.doubted.size());
  for (; wanted > 0; --wanted) {
    auto next = route.doubted.upper_bound(route.doubted_to);
    route.doubted_to = next == route.doubted.end() ? *route.doubted.begin() : *next;
    route.queue.retry_now(route.doubted_to);
  }
}

/// It takes mail: what it refused before is tried again. What it took before it went away tells nothing of how it comes back.
void Control::regain_trust(ControlledRoute& route) {
  if (route.board.is_held()) return;
  route.trust.took();
  if (route.doubted.empty()) return;
  for (failover::EntryId entry : std::exchange(route.doubted, {})) route.queue.retry_now(entry);
  if (route.wakeup) route.wakeup->fire();
  log(LogLevel::info, "held", {{"route", route.board.name}, {"note", "it takes mail again: what it refused is tried again"}});
}

/// Held mail teaches who exists as live mail does. A refusal of the whole message, of several, may be about any.
void Control::learn_recipients(const journal::Entry& entry, const DeliveryResult& result) {
  for (const DeliveryResult::Verdict& verdict : result.verdicts) {
    bool exists = verdict.reply.is_positive();
    bool is_unknown = result.verdicts.size() == 1 && failover::says_unknown(verdict.reply.wire);
    if (exists || is_unknown)
      directory_.learn(entry.message.recipients[verdict.recipient].address, exists, verdict.reply.summary(), journal::now_us());
  }
}

journal::OutcomeRecord Control::outcome_record(journal::RecordId entry, journal::Outcome outcome, const Words& recipients) {
  journal::OutcomeRecord record;
  record.time_us = journal::now_us();
  record.entry = entry;
  for (const auto& [recipient, words] : recipients) record.changes.push_back({recipient, outcome, words});
  return record;
}

void Control::settle(ControlledRoute& route, journal::RecordId entry, journal::Outcome outcome, const Words& recipients) {
  journal_.writer().submit_urgent(journal::RecordKind::outcome, journal::encode(outcome_record(entry, outcome, recipients)), nullptr);
  forget(route, entry, recipients);
  if (outcome == journal::Outcome::delivered) ++route.delivered;
}

void Control::forget(ControlledRoute& route, journal::RecordId entry, const Words& recipients) {
  for (const auto& [recipient, words] : recipients) {
    route.queue.remove(entry, recipient);
    auto kept = route.kept.find(entry);
    if (kept == route.kept.end()) continue;
    kept->second.erase(recipient);
    if (kept->second.empty()) route.kept.erase(kept);
  }
  entry_may_be_done(route, entry);
}

void Control::entry_may_be_done(ControlledRoute& route, failover::EntryId entry) {
  if (route.queue.has(entry) || route.kept.count(entry)) return;
  route.doubted.erase(entry);
  route.board.held.fetch_sub(1, std::memory_order_relaxed);
}

/// Out of the queue, so that it blocks nobody, but not settled: an operator decides.
void Control::keep(ControlledRoute& route, journal::RecordId entry, const Words& recipients) {
  journal::OutcomeRecord record = outcome_record(entry, journal::Outcome::held, recipients);
  for (journal::OutcomeRecord::Change& change : record.changes) change.reply = "kept for the operator, the sender is not verified: " + change.reply;
  for (const auto& [recipient, words] : recipients) {
    route.kept[entry][recipient] = words;
    route.queue.remove(entry, recipient);
  }
  journal_.writer().submit_urgent(journal::RecordKind::outcome, journal::encode(record), nullptr);
  log(LogLevel::warning, "kept",
      {{"entry", entry}, {"route", route.board.name}, {"reply", recipients.front().second}, {"remedy", "holdfast queue show, retry or drop"}});
}

/// A sender that was not verified may be forged: to tell it would be backscatter.
bool Control::may_be_told(const journal::Entry& entry) {
  if (!settings_->config.routes.back().is_egress) return false;
  if (!entry.message.auth.empty()) return true;
  auto first = journal_.frame(entry, 0);
  return first && *first && failover::has_spf_pass(**first, settings_->config.spf_gateway);
}

Task<void> Control::refuse(ControlledRoute& route, const journal::Entry& entry, Words recipients, journal::Outcome outcome, Wakeup& wakeup) {
  bool has_sender = !entry.message.mail_from.empty();
  Words told, silent;
  for (auto& [recipient, words] : recipients) {
    bool wants = has_sender && failover::notify_of(entry.message.recipients[recipient].params).failure;
    if (wants)
      told.emplace_back(recipient, std::move(words));
    else
      silent.emplace_back(recipient, words + (has_sender ? " (no notification: NOTIFY)" : " (no notification: null sender)"));
  }
  if (!silent.empty()) settle(route, entry.id, outcome, silent);
  if (told.empty()) co_return;
  if (!may_be_told(entry)) {
    keep(route, entry.id, told);
    co_return;
  }
  bool is_told = co_await notify(entry, told, failover::Action::failed, outcome_record(entry.id, outcome, told), wakeup);
  if (is_told) {
    forget(route, entry.id, told);
    co_return;
  }
  for (const auto& [recipient, words] : told) route.queue.defer(entry.id, recipient, words, Clock::now());
}

Task<bool> Control::notify(const journal::Entry& entry, Words recipients, failover::Action action, std::optional<journal::OutcomeRecord> outcome,
                           Wakeup& wakeup) {
  const journal::MessageRecord& message = entry.message;
  failover::Notification notification;
  notification.action = action;
  notification.reporting_mta = settings_->config.hostname;
  notification.time_us = journal::now_us();
  notification.id = fmt::format("{}.{}.{}", entry.id, started_us_, next_notification_++);
  notification.entry = &entry;
  notification.is_whole =
      upper(message.mail_params).find("RET=FULL") != std::string::npos && message.size <= largest_returned && action == failover::Action::failed;
  for (std::size_t i = 0; i < settings_->config.routes.size(); ++i)
    if (settings_->config.routes[i].name == message.route)
      notification.will_retry_until_us =
          journal_.written_us(entry.id, message.time_us) + settings_->config.routes[i].failover.max_hold.count() * 1000;
  const char* fallback = action == failover::Action::failed ? "5.0.0" : action == failover::Action::delayed ? "4.4.1" : "2.0.0";
  for (const auto& [recipient, words] : recipients) {
    const journal::Recipient& one = message.recipients[recipient];
    notification.recipients.push_back({one.address, one.params, words, failover::status_in(words, fallback)});
  }
  for (std::uint32_t index = 0;; ++index) {
    auto frame = journal_.frame(entry, index);
    if (!frame || !*frame) break;
    notification.original += **frame;
    if (!notification.is_whole) break;
  }
  if (!notification.is_whole) {
    std::size_t end = notification.original.find("\r\n\r\n");
    if (end != std::string::npos) notification.original.resize(end + 2);
  }

  auto ticket = std::make_shared<LoopTicket>(loop_, wakeup);
  journal::Draft draft(journal_.writer(), ticket);
  const std::string text = failover::write_notification(notification);
  draft.append(text);
  journal::MessageRecord record;
  record.time_us = notification.time_us;
  record.direction = journal::Direction::outbound;
  record.session = "notification";
  record.route = settings_->config.routes.back().name;
  record.client = record.server = "127.0.0.1:0";
  record.helo = settings_->config.hostname;
  record.protocol = "ESMTP";
  bool is_wide = std::any_of(text.begin(), text.end(), [](char c) { return static_cast<unsigned char>(c) >= 128; });
  bool is_international = upper(message.mail_params).find("SMTPUTF8") != std::string::npos;
  record.mail_params = is_international ? "BODY=8BITMIME SMTPUTF8" : is_wide ? "BODY=8BITMIME" : "";
  record.message_id = fmt::format("holdfast-{}@{}", notification.id, notification.reporting_mta);
  record.subject = "delivery status notification";
  record.recipients.push_back({message.mail_from, "NOTIFY=NEVER", "", journal::Outcome::held});
  draft.finish(record, outcome);
  while (!ticket->is_settled()) co_await wakeup.wait(Deadline::max());
  ticket->forget();
  if (!ticket->is_committed()) co_return false;
  ControlledRoute& egress = route_named(record.route);
  egress.board.held.fetch_add(1, std::memory_order_relaxed);
  enqueue(egress, ticket->id(), record.time_us, {{0, message.mail_from}});
  log(LogLevel::info, "notification", {{"entry", entry.id}, {"notification", ticket->id()}, {"to", message.mail_from}});
  co_return true;
}

/// When a held entry came, as far as the log knows it.
std::int64_t Control::came_us(const ControlledRoute& route, failover::EntryId entry) const {
  return journal_.written_us(entry, route.queue.time_us(entry));
}

Duration Control::age(const ControlledRoute& route, failover::EntryId entry) const {
  return Duration((journal::now_us() - came_us(route, entry)) / 1000);
}

/// Until the oldest of what waits expires; nothing where nothing waits.
std::optional<Duration> Control::expires_in(const ControlledRoute& route) const {
  std::optional<failover::EntryId> oldest = route.queue.oldest();
  if (!oldest) return std::nullopt;
  return std::max(Duration(0), config_of(route).max_hold - age(route, *oldest));
}

/// Tells once that held mail will expire, while there is time to do something. In a drain the primary has a say in each message.
void Control::watch_age(ControlledRoute& route) {
  Duration max_hold = config_of(route).max_hold;
  std::optional<Duration> left = route.board.is_held() ? expires_in(route) : std::nullopt;
  bool expires_soon = left && *left < soon(max_hold);
  if (std::exchange(route.expires_soon, expires_soon) == expires_soon || !expires_soon) return;
  std::string problem = fmt::format("the oldest held message expires in {}, and the others after it", roughly(*left));
  log(LogLevel::error, "held",
      {{"route", route.board.name},
       {"problem", problem},
       {"held", route.board.held.load()},
       {"remedy", "repair the primary, or raise failover.max_hold (" + to_text(max_hold) + ") and SIGHUP"}});
  calls_.on_held_trouble(route.board.name, "EXPIRES SOON: " + problem);
}

/// Only so many at one look: the loop has other things to do.
void Control::expire(ControlledRoute& route) {
  const FailoverConfig& config = config_of(route);
  std::size_t left = clock_.is_trusted_after(config.max_hold) ? expire_step : 0;
  for (std::optional<failover::EntryId> id = route.queue.oldest(); id && left-- > 0 && age(route, *id) > config.max_hold;
       id = route.queue.first_after(*id)) {
    std::optional<failover::HoldQueue::Delivery> all = route.queue.take(*id);
    if (all) expire_entry(route, std::move(*all)).spawn();
    if (!route.queue.has(*id)) break;  // it went at once
  }
  if (config.delay_notice == Duration(0) || !clock_.is_trusted_after(config.delay_notice)) return;
  left = expire_step;
  for (std::optional<failover::EntryId> id = route.queue.first_after(route.delay_told_to); id && left-- > 0 && age(route, *id) > config.delay_notice;
       id = route.queue.first_after(*id)) {
    route.delay_told_to = *id;
    // Those that were due before this start were told then.
    bool is_new = came_us(route, *id) + config.delay_notice.count() * 1000 > started_us_;
    if (is_new) tell_delay(route, *id).spawn();
  }
}

Task<void> Control::expire_entry(ControlledRoute& route, failover::HoldQueue::Delivery delivery) {
  Wakeup wakeup(loop_);
  Words words;
  for (const failover::HoldQueue::Waiting& one : route.queue.waiting(delivery.id)) {
    std::string last = one.reply;
    if (last.empty()) last = "450 4.4.7 the mail server was away for too long";
    if (!failover::is_smtp_reply(last)) last = "450 4.4.7 the mail server did not take it in time: " + last;
    words.emplace_back(one.index, std::move(last));
  }
  auto entry = journal_.entry(delivery.id);
  if (entry) {
    co_await refuse(route, *entry, std::move(words), journal::Outcome::expired, wakeup);
    co_return;
  }
  for (std::uint32_t one : delivery.recipients) route.queue.remove(delivery.id, one);
  keep_unreadable(route, delivery.id, delivery.recipients, entry.error().message);
}

Task<void> Control::tell_delay(ControlledRoute& route, failover::EntryId id) {
  Wakeup wakeup(loop_);
  auto entry = journal_.entry(id);
  if (!entry || entry->message.mail_from.empty() || !may_be_told(*entry)) co_return;
  Words words;
  for (const failover::HoldQueue::Waiting& one : route.queue.waiting(id)) {
    std::string_view params = entry->message.recipients[one.index].params;
    bool is_unsaid = upper(params).find("NOTIFY=") == std::string::npos;
    if (is_unsaid || failover::notify_of(params).delay) words.emplace_back(one.index, one.reply);
  }
  if (!words.empty()) co_await notify(*entry, std::move(words), failover::Action::delayed, std::nullopt, wakeup);
}

}  // namespace holdfast::proxy
