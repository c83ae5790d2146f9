// What is held for a route that is no longer in the configuration, renamed perhaps: it goes to the route that serves its recipients now.
#include <algorithm>

#include "proxy/address.h"
#include "proxy/control.h"
#include "proxy/log.h"

namespace holdfast::proxy {
namespace {

/// Entries in one turn of the loop.
constexpr std::uint64_t step = 500;

}  // namespace

/// Finds, at the start, routes of before that are not configured and have held mail.
Status Control::find_departed() {
  auto is_known = [this](std::uint32_t hash) {
    return std::any_of(routes_.begin(), routes_.end(), [&](const auto& one) { return journal::route_hash(one.first) == hash; });
  };
  constexpr std::size_t batch = 4096;
  for (journal::RecordId last = 0;;) {
    auto found = journal_.held_after(last, batch);
    if (!found) return found.error();
    for (const journal::Catalog::Held& one : *found) {
      if (is_known(one.route)) continue;
      auto entry = journal_.entry(one.entry);
      if (!entry) {
        log(LogLevel::error, "held", {{"entry", one.entry}, {"problem", entry.error().message}});
        continue;
      }
      const std::string& name = entry->message.route;
      auto departed = std::make_unique<ControlledRoute>(board(name), settings_->config.routes.front().failover);
      departed->is_configured = false;
      routes_.try_emplace(name, std::move(departed));
    }
    if (found->size() < batch) return {};
    last = found->back().entry;
  }
}

ControlledRoute& Control::heir_of(const journal::Entry& entry, std::uint32_t recipient) {
  const std::vector<RouteConfig>& routes = settings_->config.routes;
  bool is_outward = entry.message.direction == journal::Direction::outbound && routes.back().is_egress;
  if (is_outward) return route_named(routes.back().name);
  return route_named(routes[route_of_domain(settings_->config, domain_of(entry.message.recipients[recipient].address), 0)].name);
}

/// As much as there is room for, and time; what is under way or on disk follows. On its record stays the route that it came for.
void Control::hand_over(ControlledRoute& departed) {
  std::uint64_t count = 0;
  ControlledRoute* heir = nullptr;
  for (std::optional<failover::EntryId> id = departed.queue.oldest(), next; id && count < step; id = next) {
    next = departed.queue.first_after(*id);
    std::optional<failover::HoldQueue::Delivery> all = departed.queue.take(*id);
    if (!all) continue;
    auto entry = journal_.entry(*id);
    if (entry) heir = &heir_of(*entry, all->recipients.front());
    bool has_room = entry && heir->queue.size() < window;
    if (!has_room || !load(*heir, *id, all->recipients)) {
      departed.queue.put_back(*all);
      continue;
    }
    for (std::uint32_t one : all->recipients) departed.queue.remove(*id, one);
    heir->board.held.fetch_add(1, std::memory_order_relaxed);
    entry_may_be_done(departed, *id);
    ++count;
  }
  if (count == 0) return;
  log(LogLevel::warning, "held",
      {{"route", departed.board.name},
       {"note", "this route is no longer configured: its held mail goes to the routes that serve its recipients now"},
       {"entries", count},
       {"first", heir->board.name}});
  for (auto& [name, route] : routes_)
    if (route->wakeup) route->wakeup->fire();
}

}  // namespace holdfast::proxy
