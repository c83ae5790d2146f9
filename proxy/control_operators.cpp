// Control: what operators ask and decide. Their threads wait for the control loop, but not for long.
#include <fmt/format.h>

#include <algorithm>
#include <future>

#include "proxy/control.h"
#include "proxy/log.h"
#include "proxy/units.h"

namespace holdfast::proxy {
namespace {

/// Who only looks wants to know soon that there is no answer; whose decision is on its way, whether it was taken. Both are less than
/// ask_admin() waits.
constexpr std::chrono::milliseconds patience_of_questions{500}, patience_of_decisions{4000};
/// A page of a list is over after this, too: what it shows may have to come from a disk that is busy, and deliveries wait meanwhile.
constexpr std::chrono::milliseconds longest_page{100};

}  // namespace

std::optional<Json> Control::call(std::function<Json()> action, std::chrono::milliseconds patience) {
  auto answer = std::make_shared<std::promise<Json>>();
  auto future = answer->get_future();
  loop_.post([answer, action = std::move(action)] { answer->set_value(action()); });
  if (future.wait_for(patience) != std::future_status::ready) return std::nullopt;
  return future.get();
}

Result<Json> Control::ask(std::function<Json()> question) {
  std::optional<Json> answer = call(std::move(question), patience_of_questions);
  if (!answer) return Error{ErrorCode::unavailable, "the control loop does not answer; see the log"};
  return *std::move(answer);
}

Result<Json> Control::decide(std::function<Json()> action) {
  std::optional<Json> answer = call(std::move(action), patience_of_decisions);
  if (!answer)
    return Error{ErrorCode::unavailable,
                 "the control loop has not answered yet; the decision takes effect when it does, see holdfast status and the log"};
  return *std::move(answer);
}

Json Control::take_mode(const std::string& name, failover::Mode mode, const std::string& by, const std::string& reason) {
  Json changed = Json::array();
  for (auto& [route_name, route] : routes_) {
    bool is_meant = name.empty() ? !settings_->config.routes[route->index].is_egress : name == route_name;
    if (!is_meant || !route->is_configured) continue;
    apply(*route, route->state.set_mode(mode, by, reason, journal::now_us()));
    changed.push_back(describe(*route));
  }
  note_status();
  return changed;
}

Result<Json> Control::set_mode(const std::string& route, failover::Mode mode, const std::string& by, const std::string& reason) {
  return decide([this, route, mode, by, reason] { return take_mode(route, mode, by, reason); });
}

void Control::set_all(failover::Mode mode, const std::string& by, const std::string& reason) {
  loop_.post([this, mode, by, reason] { take_mode("", mode, by, reason); });
}

void Control::set_flag(bool is_there, const std::string& path) {
  loop_.post([this, is_there, path] {
    for (auto& [name, route] : routes_)
      if (!settings_->config.routes[route->index].is_egress) apply(*route, route->state.set_flag(is_there, "flag file " + path, journal::now_us()));
    note_status();
  });
}

Json Control::describe(ControlledRoute& route) {
  const failover::RouteState::Status& status = route.state.status();
  Json json = {{"name", route.board.name},
               {"state", failover::to_string(status.state)},
               {"mode", failover::to_string(status.mode)},
               {"since", format_time(status.since_us)},
               {"by", status.by},
               {"reason", status.reason},
               {"held", route.board.held.load()},
               {"kept_for_operator", route.kept.size()},
               {"doubted", route.doubted.size()},
               {"possible_duplicates", route.board.possible_duplicates.load()},
               {"messages",
                {{"forwarded", route.board.messages.forwarded.load()},
                 {"held", route.board.messages.held.load()},
                 {"rejected", route.board.messages.rejected.load()},
                 {"deferred", route.board.messages.deferred.load()},
                 {"abandoned", route.board.messages.abandoned.load()}}},
               {"delivering", route.under_way},
               {"delivered", route.delivered}};
  // An estimate from the last seconds' progress.
  double per_second = 0;
  if (route.progress.size() >= 2) {
    double seconds = std::chrono::duration<double>(route.progress.back().first - route.progress.front().first).count();
    if (seconds > 0) per_second = static_cast<double>(route.progress.back().second - route.progress.front().second) / seconds;
  }
  json["per_second"] = per_second;
  json["left_s"] = per_second > 0 ? Json(static_cast<std::uint64_t>(static_cast<double>(route.board.held.load()) / per_second)) : Json();
  json["problem"] = route.breaker.reason();
  json["limit_reached"] = route.limit_reached;
  std::optional<Duration> expires = expires_in(route);
  json["expires_in_s"] = expires ? Json(std::chrono::duration_cast<std::chrono::seconds>(*expires).count()) : Json();
  json["expires_soon"] = route.expires_soon && expires;
  json["releases_after"] = to_text(route.breaker.current_release());
  return json;
}

Json Control::describe_all() {
  Json all = Json::array();
  for (const RouteConfig& config : settings_->config.routes) {
    Json one = describe(route_named(config.name));
    Json upstreams = Json::array();
    for (const HostPort& upstream : config.upstreams) {
      std::string problem = occupancy_.of(upstream)->problem();
      upstreams.push_back({{"address", to_string(upstream)}, {"healthy", problem.empty()}, {"last_error", problem}});
    }
    one["upstreams"] = upstreams;
    one["late_s"] = 0;
    all.push_back(one);
  }
  return all;
}

/// For who asks while this loop cannot answer, because the disk keeps it waiting.
void Control::note_status() {
  Json all = describe_all();
  std::lock_guard lock(known_mutex_);
  known_ = std::move(all);
  known_at_ = std::chrono::steady_clock::now();
}

Json Control::status() {
  if (Result<Json> now = ask([this] { return describe_all(); })) return *std::move(now);
  std::lock_guard lock(known_mutex_);
  Json all = known_;
  for (Json& route : all) route["late_s"] = std::chrono::duration_cast<std::chrono::seconds>(std::chrono::steady_clock::now() - known_at_).count();
  return all;
}

// ---- Held mail

/// Entries of a route behind one: in the queue, kept, or on disk only. Oldest first.
std::vector<failover::EntryId> Control::held_behind(ControlledRoute& route, failover::EntryId after, std::size_t most) {
  std::set<failover::EntryId> ids;
  for (auto kept = route.kept.upper_bound(after); kept != route.kept.end() && ids.size() < most; ++kept) ids.insert(kept->first);
  std::size_t queued = 0;
  for (std::optional<failover::EntryId> id = route.queue.first_after(after); id && queued < most; id = route.queue.first_after(*id), ++queued)
    ids.insert(*id);
  std::uint32_t mine = journal::route_hash(route.board.name);
  bool has_more = !route.is_all_loaded;
  for (failover::EntryId last = std::max(after, route.loaded_to); has_more && ids.size() < most;) {
    auto held = journal_.held_after(last, most);
    has_more = held && held->size() == most;
    if (!held || held->empty()) break;
    last = held->back().entry;
    for (const journal::Catalog::Held& one : *held)
      if (one.route == mine && route.settled_ahead.count(one.entry) == 0) ids.insert(one.entry);
  }
  std::vector<failover::EntryId> first(ids.begin(), ids.end());
  first.resize(std::min(first.size(), most));
  return first;
}

Json Control::describe_held(ControlledRoute& route, failover::EntryId id) {
  auto entry = journal_.entry(id);
  Json recipients = Json::array();
  auto add = [&](std::uint32_t index, const char* status, const std::string& reply, unsigned attempts, const Json& next_attempt = nullptr) {
    bool is_known = entry && index < entry->message.recipients.size();
    recipients.push_back({{"index", index},
                          {"address", is_known ? entry->message.recipients[index].address : ""},
                          {"status", status},
                          {"reply", reply},
                          {"attempts", attempts},
                          {"next_attempt", next_attempt}});
  };
  for (const failover::HoldQueue::Waiting& one : route.queue.waiting(id)) {
    bool is_deferred = !one.is_in_flight && one.attempts > 0;
    auto left = std::chrono::duration_cast<std::chrono::microseconds>(std::max(one.due, Clock::now()) - Clock::now());
    add(one.index,
        one.is_in_flight ? "delivering"
        : is_deferred    ? "deferred"
                         : "waiting",
        one.reply, one.attempts, is_deferred ? Json(format_time(journal::now_us() + left.count())) : Json());
  }
  auto kept = route.kept.find(id);
  if (kept != route.kept.end())
    for (const auto& [index, words] : kept->second) add(index, "kept", words, 1);
  bool is_on_disk_only = !route.queue.has(id) && kept == route.kept.end();
  if (is_on_disk_only)
    for (std::uint32_t index : find_on_disk(id).recipients) add(index, "waiting", "", 0);
  return {{"id", id},
          {"route", route.board.name},
          {"time", entry ? format_time(entry->message.time_us) : ""},
          {"mail_from", entry ? entry->message.mail_from : ""},
          {"size", entry ? entry->message.size : 0},
          {"recipients", recipients}};
}

/// The route on which an entry waits that is not in memory; none when it does not.
Control::HeldEntry Control::find_on_disk(failover::EntryId id) {
  auto found = journal_.held(id);
  if (!found || !*found) return {};
  const journal::Catalog::Held& held = **found;
  for (auto& [name, route] : routes_)
    if (journal::route_hash(name) == held.route && id > route->loaded_to && route->settled_ahead.count(id) == 0)
      return {route.get(), held.recipients};
  return {};
}

Result<Json> Control::queue_list(const std::string& name, const std::string& from_route, failover::EntryId after, std::size_t most) {
  return ask([this, name, from_route, after, most] {
    if (!name.empty() && routes_.count(name) == 0) return Json{{"problem", fmt::format("there is no route named \"{}\"", name)}};
    Json entries = Json::array();
    const Deadline over = Clock::now() + longest_page;
    for (auto route = routes_.lower_bound(from_route); route != routes_.end(); ++route) {
      if (!name.empty() && name != route->first) continue;
      failover::EntryId behind = route->first == from_route ? after : 0;
      for (failover::EntryId id : held_behind(*route->second, behind, most - entries.size())) {
        entries.push_back(describe_held(*route->second, id));
        if (entries.size() < most && Clock::now() < over) continue;
        Json next = {{"route", route->first}, {"after", id}};
        return Json{{"entries", entries}, {"next", next}};
      }
    }
    return Json{{"entries", entries}, {"next", nullptr}};
  });
}

Result<Json> Control::queue_show(failover::EntryId id) {
  return ask([this, id] {
    HeldEntry waiting = find_on_disk(id);
    for (auto& [name, route] : routes_)
      if (waiting.route == route.get() || route->queue.has(id) || route->kept.count(id) > 0) return describe_held(*route, id);
    return Json{{"problem", fmt::format("entry {} is not held", id)}};
  });
}

Result<Json> Control::queue_retry(failover::EntryId id) {
  return decide([this, id] {
    std::uint64_t count = 0;
    for (auto& [name, route] : routes_) {
      for (auto kept = route->kept.begin(); kept != route->kept.end();) {
        auto one = kept++;
        if (id != 0 && one->first != id) continue;
        std::vector<std::uint32_t> recipients;
        for (const auto& [index, words] : one->second) recipients.push_back(index);
        if (!load(*route, one->first, recipients)) continue;  // still unreadable
        route->kept.erase(one);
      }
      if (id == 0 || route->queue.has(id)) count += id == 0 ? route->queue.size() : 1;
      route->queue.retry_now(id);
      route->paused_until = {};
      if (route->wakeup) route->wakeup->fire();
    }
    if (id != 0 && count == 0 && !find_on_disk(id).route) return Json{{"problem", fmt::format("entry {} is not held, or cannot be read", id)}};
    return Json{{"retried", count}};
  });
}

/// What waits of an entry is taken out of its queue. No route when nothing does.
Control::HeldEntry Control::take_held(failover::EntryId id) {
  for (auto& [name, route] : routes_) {
    std::vector<std::uint32_t> recipients;
    if (route->queue.has(id)) recipients = route->queue.take(id)->recipients;
    if (auto kept = route->kept.find(id); kept != route->kept.end())
      for (const auto& [index, said] : kept->second) recipients.push_back(index);
    if (!recipients.empty()) return {route.get(), std::move(recipients)};
  }
  HeldEntry waiting = find_on_disk(id);
  if (waiting.route) waiting.route->settled_ahead.insert(id);
  return waiting;
}

Result<Json> Control::queue_drop(const std::vector<failover::EntryId>& entries, const std::string& by, const std::string& reason) {
  return decide([this, entries, by, reason] {
    for (failover::EntryId id : entries)
      for (auto& [name, route] : routes_)
        if (route->queue.is_in_flight(id))
          return Json{{"problem", fmt::format("entry {} is being delivered at this moment; try again", id)}, {"delivering", id}};
    std::size_t dropped = 0;
    for (failover::EntryId id : entries) {
      HeldEntry waiting = take_held(id);
      if (!waiting.route) continue;
      Words words;
      for (std::uint32_t one : waiting.recipients) words.emplace_back(one, fmt::format("dropped by {}: {}", by, reason));
      dropped += words.size();
      settle(*waiting.route, id, journal::Outcome::dropped, words);
      log(LogLevel::warning, "dropped", {{"entry", id}, {"by", by}, {"reason", reason}});
      if (waiting.route->wakeup) waiting.route->wakeup->fire();
    }
    if (dropped == 0) return Json{{"problem", fmt::format("entry {} is not held", fmt::join(entries, ", "))}};
    return Json{{"dropped", dropped}};
  });
}

}  // namespace holdfast::proxy
