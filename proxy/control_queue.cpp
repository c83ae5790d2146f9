// Control's side of held mail: what is delivered when. What becomes of it is in control_ends.cpp.
#include <algorithm>
#include <functional>
#include <utility>

#include "proxy/control.h"
#include "proxy/log.h"

namespace holdfast::proxy {
namespace {

/// Entries read from disk in one turn of the loop.
constexpr std::size_t refill_step = 500;
constexpr Duration first_pause{100}, longest_pause{10'000};

/// "192.0.2.1:25" or "[2001:db8::1]:25" as recorded.
Endpoint endpoint_of(const std::string& text) {
  std::optional<HostPort> parsed = parse_host_port(text);
  if (!parsed) return {"127.0.0.1", 0};
  return {parsed->host, parsed->port};
}

}  // namespace

void Control::hold(RouteBoard& board, journal::RecordId entry, std::int64_t time_us, std::vector<HeldRecipient> recipients) {
  board.held.fetch_add(1, std::memory_order_relaxed);
  loop_.post([this, &board, entry, time_us, recipients = std::move(recipients)] { enqueue(route_named(board.name), entry, time_us, recipients); });
}

void Control::enqueue(ControlledRoute& route, journal::RecordId entry, std::int64_t time_us, const std::vector<HeldRecipient>& recipients) {
  bool is_late = entry < route.loaded_to;
  if (!is_late && (!route.is_all_loaded || route.queue.size() >= window)) {
    route.is_all_loaded = false;
    route.skipped_to = std::max(route.skipped_to, entry);
    return;
  }
  std::vector<failover::HoldQueue::Recipient> queued;
  for (const HeldRecipient& one : recipients) queued.push_back({one.index, std::hash<std::string>()(directory_.canonical(one.address))});
  route.queue.add(entry, time_us, queued);
  if (!is_late) route.loaded_to = entry;
  if (route.wakeup) route.wakeup->fire();
}

/// An entry from disk into the queue.
Status Control::load(ControlledRoute& route, journal::RecordId id, const std::vector<std::uint32_t>& recipients) {
  auto entry = journal_.entry(id);
  if (!entry) return entry.error();
  std::vector<failover::HoldQueue::Recipient> queued;
  for (std::uint32_t index : recipients)
    if (index < entry->message.recipients.size())
      queued.push_back({index, std::hash<std::string>()(directory_.canonical(entry->message.recipients[index].address))});
  route.queue.add(id, entry->message.time_us, queued);
  return {};
}

void Control::keep_unreadable(ControlledRoute& route, journal::RecordId id, const std::vector<std::uint32_t>& recipients, const std::string& why) {
  for (std::uint32_t index : recipients) route.kept[id][index] = "it cannot be read: " + why;
  log(LogLevel::error, "held", {{"entry", id}, {"problem", why}, {"remedy", "holdfast journal verify; then holdfast queue retry or drop"}});
}

/// Whether more may come into memory. What waits for recipients who take nothing keeps nobody else's mail out of it.
bool Control::has_room(ControlledRoute& route) {
  std::size_t size = route.queue.size();
  if (size < window / 2) return true;
  if (!may_deliver(route) || route.queue.recipients() >= most_recipients) return false;
  if (Clock::now() >= route.looks_again) {
    route.blocked = route.queue.blocked(Clock::now());
    route.looks_again = Clock::now() + std::chrono::milliseconds(500);
  }
  return size - std::min(size, route.blocked) < window / 2;
}

/// Reads on where there is room. Returns whether there may be more on disk at once.
bool Control::refill(ControlledRoute& route) {
  if (route.is_all_loaded || !has_room(route)) return false;
  journal::RecordId indexed = journal_.indexed();
  auto held = journal_.held_after(route.loaded_to, refill_step);
  if (!held) {
    log(LogLevel::error, "held", {{"route", route.board.name}, {"problem", held.error().message}});
    return false;
  }
  std::uint32_t mine = journal::route_hash(route.board.name);
  for (const journal::Catalog::Held& one : *held) {
    route.loaded_to = one.entry;
    if (one.route != mine || route.queue.has(one.entry) || route.settled_ahead.count(one.entry) > 0) continue;
    if (Status loaded = load(route, one.entry, one.recipients); !loaded) keep_unreadable(route, one.entry, one.recipients, loaded.error().message);
  }
  route.settled_ahead.erase(route.settled_ahead.begin(), route.settled_ahead.upper_bound(route.loaded_to));
  if (held->size() == refill_step) return true;
  // What was skipped last may have been ended meanwhile: it is enough that the index, which lags behind, has come so far.
  if (std::max(route.loaded_to, indexed) >= route.skipped_to) route.is_all_loaded = true;
  return false;
}

void Control::update_backlog(ControlledRoute& route) {
  bool has_changed = route.state.set_backlog(route.queue.size() == 0 && route.is_all_loaded, journal::now_us());
  if (has_changed) apply(route, true);
}

void Control::remember(ControlledRoute& route) {
  constexpr auto lately = std::chrono::seconds(10);
  Deadline now = Clock::now();
  if (!route.progress.empty() && now - route.progress.back().first < std::chrono::milliseconds(200)) return;
  route.progress.emplace_back(now, route.delivered);
  std::erase_if(route.progress, [&](const auto& one) { return now - one.first > lately; });
}

Task<void> Control::dispatch(ControlledRoute& route) {
  route.wakeup = std::make_unique<Wakeup>(loop_);
  while (!is_stopping_) {
    bool reads_on = refill(route);
    if (!route.is_configured) hand_over(route);
    while (may_deliver(route) && route.under_way < config_of(route).drain_concurrency) {
      std::unique_ptr<Errand> first = next_errand(route, nullptr);
      if (!first) break;
      ++route.under_way;
      deliver_on(route, std::move(first)).spawn();
    }
    update_backlog(route);
    remember(route);
    Deadline next = Clock::now() + (reads_on ? std::chrono::milliseconds(1) : std::chrono::milliseconds(500));
    if (route.paused_until > Clock::now()) next = std::min(next, route.paused_until);
    if (std::optional<failover::Time> due = route.queue.next_due()) next = std::min(next, *due);
    co_await route.wakeup->wait(next);
  }
}

bool Control::may_deliver(const ControlledRoute& route) const {
  return !is_finishing_ && route.is_configured && route.state.status().state != failover::State::hold && Clock::now() >= route.paused_until;
}

/// The oldest entry that may go now; else what comes right behind the one ahead. Null when there is none.
std::unique_ptr<Errand> Control::next_errand(ControlledRoute& route, const Errand* ahead) {
  for (;;) {
    std::optional<failover::HoldQueue::Delivery> next = route.queue.next(Clock::now());
    if (!next && ahead) next = route.queue.next_behind(ahead->delivery, Clock::now());
    if (!next) return nullptr;
    auto entry = journal_.entry(next->id);
    if (entry) {
      auto errand = std::make_unique<Errand>(std::move(*next), std::move(*entry));
      const journal::MessageRecord& message = errand->entry.message;
      std::chrono::microseconds waited(journal::now_us() - journal_.written_us(errand->entry.id, message.time_us));
      errand->waited = std::chrono::duration_cast<std::chrono::seconds>(std::max(waited, std::chrono::microseconds(0)));
      errand->payload = payload_of(errand->entry, [this, from = errand.get()](std::uint32_t index) { return journal_.frame(from->entry, index); });
      return errand;
    }
    log(LogLevel::error, "held", {{"entry", next->id}, {"problem", entry.error().message}});
    for (std::uint32_t one : next->recipients) route.queue.defer(next->id, one, entry.error().message, Clock::now());
  }
}

/// A connection on which the primary is told who the client was, or comes to see.
Task<Opening> Control::opening_for(const ControlledRoute& route, const journal::MessageRecord& message, Wakeup& wakeup) {
  ClientFacts client{endpoint_of(message.client), endpoint_of(message.server)};
  bool tells_name = settings_->config.routes[route.index].identity == Identity::xclient;
  if (tells_name) client.name = co_await names_.find(client.client.address, wakeup);
  Opening opening{settings_, route.index, std::move(client), Deadline::max()};
  opening.may_hide_client = true;  // better from Holdfast's address than never
  co_return opening;
}

/// One entry after the other over one connection, while there are any and the primary takes them.
Task<void> Control::deliver_on(ControlledRoute& route, std::unique_ptr<Errand> errand) {
  Wakeup wakeup(loop_);
  auto courier = std::make_unique<Courier>(pool_, loop_, wakeup);
  std::unique_ptr<Errand> prepared;  // what follows the one that follows
  while (errand) {
    Opening opening = co_await opening_for(route, errand->entry.message, wakeup);
    std::unique_ptr<Errand> following;
    Courier::Occasions occasions;
    occasions.next = [&] {
      if (may_deliver(route)) following = prepared ? std::move(prepared) : next_errand(route, errand.get());
      return following.get();
    };
    bool is_sent = false;
    occasions.at_end = [&] {
      is_sent = true;
      ++unanswered_;
      journal_.is_sent(errand->entry);
    };
    occasions.meanwhile = [&] {
      if (following && may_deliver(route)) prepared = next_errand(route, following.get());
      if (prepared) courier->prepare(*prepared);
    };
    co_await courier->deliver(*errand, opening, occasions);
    bool has_failed = !errand->result.connection_failure.empty();
    if (!has_failed) route.pause = Duration(0);
    if (!has_failed || !errand->result.verdicts.empty()) co_await take_verdicts(route, errand->entry, errand->result, wakeup);
    // Whoever got no verdict is tried again.
    if (has_failed)
      connection_failed(route, errand->unanswered(), errand->result);
    else
      route.queue.put_back(errand->delivery);
    if (is_sent) {
      journal_.is_answered(errand->entry.id);
      --unanswered_;
    }
    route.wakeup->fire();
    // What was announced may go on only in its turn, and while there is a connection.
    bool goes_on = following && errand->result.connection_failure.empty() && may_deliver(route) && route.queue.is_first(following->delivery);
    if (following && !goes_on) {
      courier = std::make_unique<Courier>(pool_, loop_, wakeup);
      route.queue.put_back(following->delivery);
      following.reset();
    }
    if (prepared && !following) {
      route.queue.put_back(prepared->delivery);
      prepared.reset();
    }
    errand = std::move(following);
    if (!errand && may_deliver(route)) errand = next_errand(route, nullptr);
  }
  courier.reset();
  --route.under_way;
  route.wakeup->fire();
}

void Control::connection_failed(ControlledRoute& route, const failover::HoldQueue::Delivery& delivery, const DeliveryResult& result) {
  if (result.may_have_arrived) {
    journal::OutcomeRecord outcome;
    outcome.time_us = journal::now_us();
    outcome.entry = delivery.id;
    outcome.is_possible_duplicate = true;
    for (std::uint32_t one : delivery.recipients)
      outcome.changes.push_back({one, journal::Outcome::held, "the answer to the whole message was lost: " + result.connection_failure});
    journal_.writer().submit_urgent(journal::RecordKind::outcome, journal::encode(outcome), nullptr);
    route.board.possible_duplicates.fetch_add(1, std::memory_order_relaxed);
  }
  bool was_open = route.breaker.is_open();
  // A connection that was lost may be the message's doing: only many such losses say something about the primary.
  if (result.was_interrupted)
    route.breaker.faltered(Clock::now(), result.connection_failure);
  else
    route.breaker.failed(Clock::now(), result.connection_failure);
  apply_breaker(route, was_open);
  route.pause = std::min(longest_pause, std::max(first_pause, route.pause * 2));
  route.paused_until = Clock::now() + route.pause;
  if (result.was_interrupted)
    route.queue.interrupted(delivery, result.connection_failure, Clock::now());
  else
    route.queue.put_back(delivery);
}

}  // namespace holdfast::proxy
