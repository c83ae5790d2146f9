#include "proxy/control.h"

#include "journal/files.h"
#include "proxy/command.h"
#include "proxy/log.h"

namespace holdfast::proxy {
namespace {

constexpr auto tick_interval = std::chrono::milliseconds(100);
/// A probe that takes longer has failed, however patient the route's other timeouts are; unless the primary is known to take its time,
/// which is found out by waiting longer after each failure while the breaker is open.
constexpr Duration usual_patience{2000}, longest_patience{10'000};
/// Addresses that are not needed now are looked at once in so many probes.
constexpr int probes_a_look = 10;

}  // namespace

Control::Control(journal::Journal& journal, Resolver& resolver, ClientNames& names, Occupancy& occupancy, std::unique_ptr<journal::SealedStore> store,
                 Calls calls)
    : journal_(journal),
      names_(names),
      occupancy_(occupancy),
      calls_(std::move(calls)),
      pool_(loop_, resolver, occupancy),
      keeper_(journal, std::move(store), directory_, boards_) {}

Control::~Control() { stop(); }

void Control::configure(std::shared_ptr<const Settings> settings) {
  for (const RouteConfig& route : settings->config.routes) board(route.name);
  directory_.set_options(settings->config.directory.options);
  auto take = [this, settings] {
    settings_ = settings;
    std::vector<ControlledRoute*> added;
    for (auto& [name, route] : routes_) {
      route->is_configured = false;
      route->index = 0;
    }
    for (std::size_t index = 0; index < settings_->config.routes.size(); ++index) {
      const RouteConfig& config = settings_->config.routes[index];
      std::unique_ptr<ControlledRoute>& route = routes_[config.name];
      if (!route) added.push_back((route = std::make_unique<ControlledRoute>(board(config.name), config.failover)).get());
      route->is_configured = true;
      route->index = index;
      route->breaker.set_options(config.failover.breaker);
      route->queue.set_options(config.failover.retry);
      route->trust.set_doubt_after(config.failover.doubt_after);
    }
    if (!thread_.joinable()) return;  // start() does the rest
    for (ControlledRoute* route : added) {
      if (Status restored = restore(*route); !restored) log(LogLevel::error, "failover", {{"problem", restored.error().message}});
      set_to_work(*route);
    }
    for (auto& [name, route] : routes_)
      for (Wakeup* wakeup : {route->wakeup.get(), route->prober.get(), route->watcher.get()})
        if (wakeup) wakeup->fire();
    pool_.sweep(true);
  };
  if (thread_.joinable())
    loop_.post(take);
  else
    take();
}

void Control::set_to_work(ControlledRoute& route) {
  probe(route).spawn();
  watch_standbys(route).spawn();
  dispatch(route).spawn();
}

const FailoverConfig& Control::config_of(const ControlledRoute& route) const { return settings_->config.routes[route.index].failover; }

/// The state of before the last stop, and what is held.
Status Control::restore(ControlledRoute& route) {
  auto known = journal_.state_of(route.board.name);
  if (!known)  // a damaged segment; the mail goes on
    log(LogLevel::error, "failover",
        {{"route", route.board.name},
         {"problem", "its last state cannot be read: " + known.error().message},
         {"result", "the breaker finds out"},
         {"remedy", "if an operator had decided: holdfast failover hold or pass"}});
  std::optional<journal::StateRecord> before = known ? *known : std::nullopt;
  failover::RouteState::Status status;
  status.since_us = started_us_;
  if (before) {
    status.state = static_cast<failover::State>(before->state);
    status.mode = static_cast<failover::Mode>(before->mode);
    status.since_us = before->time_us;
    status.by = before->by;
    status.reason = before->reason;
  }
  route.state = failover::RouteState(status);
  bool was_tripped = status.state == failover::State::hold && status.mode == failover::Mode::automatic;
  if (was_tripped) {
    route.breaker.start_open(status.reason);
    route.state.set_breaker(true, status.reason, journal::now_us());
  }
  constexpr std::size_t batch = 4096;
  std::uint64_t held = 0;
  for (journal::RecordId last = 0;;) {
    auto found = journal_.held_after(last, batch);
    if (!found) return found.error();
    for (const journal::Catalog::Held& one : *found) held += one.route == journal::route_hash(route.board.name);
    if (found->size() < batch) break;
    last = found->back().entry;
  }
  route.board.held.store(held, std::memory_order_relaxed);
  route.is_all_loaded = held == 0;
  refill(route);
  // A configured mode that was never recorded takes effect now.
  bool has_changed = !before && route.state.set_mode(config_of(route).mode, "configuration", "failover.mode", journal::now_us());
  has_changed |= route.state.set_backlog(held == 0, journal::now_us());
  apply(route, has_changed);
  return {};
}

Status Control::start() {
  keeper_.start();
  if (Status found = find_departed(); !found) return found;
  for (auto& [name, route] : routes_)
    if (Status restored = restore(*route); !restored) return restored.error();
  note_status();
  thread_ = std::thread([this] {
    for (auto& [name, route] : routes_) set_to_work(*route);
    tick().spawn();
    loop_.run("control");
  });
  return {};
}

void Control::finish_deliveries() {
  loop_.post([this] { is_finishing_ = true; });
}

void Control::stop() {
  if (!thread_.joinable()) return;
  loop_.post([this] {
    is_finishing_ = is_stopping_ = true;
    loop_.stop();
  });
  thread_.join();
  keeper_.stop();
}

// ---- What sessions see

/// Takes what a session has seen to the route's breaker, and has the primary asked.
void Control::report(RouteBoard& board, std::function<void(failover::Breaker&)> what) {
  loop_.post([this, &board, what = std::move(what)] {
    ControlledRoute& route = route_named(board.name);
    bool was_open = route.breaker.is_open();
    what(route.breaker);
    apply_breaker(route, was_open);
    route.is_in_doubt = true;
    if (route.prober) route.prober->fire();
  });
}

void Control::failed(RouteBoard& board, const std::string& why) {
  report(board, [why](failover::Breaker& breaker) { breaker.failed(Clock::now(), why); });
}

void Control::faltered(RouteBoard& board, const std::string& why) {
  report(board, [why](failover::Breaker& breaker) { breaker.faltered(Clock::now(), why); });
}

void Control::gave_up(RouteBoard& board, Deadline since, const std::string& why) {
  report(board, [since, why](failover::Breaker& breaker) { breaker.gave_up(Clock::now(), since, why); });
}

ControlledRoute& Control::route_named(const std::string& name) { return *routes_.at(name); }

void Control::apply_breaker(ControlledRoute& route, bool was_open) {
  bool is_open = route.breaker.is_open();
  if (is_open == was_open) return;
  log(is_open ? LogLevel::warning : LogLevel::info, "breaker",
      {{"route", route.board.name},
       {"state", is_open ? "open" : "closed"},
       {"reason", is_open ? route.breaker.reason() : "the primary answers again"}});
  apply(route, route.state.set_breaker(is_open, route.breaker.reason(), journal::now_us()));
  if (is_open) calls_.on_trip(route.board.name);
}

/// Shows the state to all loops, and writes it into the journal when it has changed.
void Control::apply(ControlledRoute& route, bool has_changed) {
  const failover::RouteState::Status& status = route.state.status();
  bool is_held = status.state == failover::State::hold;
  if (is_held) route.trust.is_away();
  if (!is_held && route.board.is_held()) {
    route.seen_successes = route.board.successes.load(std::memory_order_relaxed);  // what it took before it was back tells nothing
    try_doubted(route);
  }
  route.board.mode.store(status.mode, std::memory_order_release);
  route.board.state.store(status.state, std::memory_order_release);
  if (route.wakeup) route.wakeup->fire();
  if (!has_changed) return;
  log(LogLevel::warning, "state",
      {{"route", route.board.name},
       {"state", failover::to_string(status.state)},
       {"mode", failover::to_string(status.mode)},
       {"by", status.by},
       {"reason", status.reason}});
  calls_.on_change(route.board.name, status);
  journal::StateRecord record;
  record.time_us = status.since_us;
  record.route = route.board.name;
  record.state = static_cast<std::uint8_t>(status.state);
  record.mode = static_cast<std::uint8_t>(status.mode);
  record.by = status.by;
  record.reason = status.reason;
  journal_.writer().submit_urgent(journal::RecordKind::state, journal::encode(record), nullptr);
}

// ---- Probes

/// What happened on the live side since the last look.
Task<void> Control::tick() {
  Wakeup wakeup(loop_);
  for (unsigned ticks = 0; !is_stopping_; ++ticks) {
    co_await wakeup.wait(Clock::now() + tick_interval);
    if (ticks % 10 == 0) note_status();
    clock_.look(journal::now_us(), std::chrono::steady_clock::now());
    for (auto& [name, route] : routes_) {
      std::uint64_t successes = route->board.successes.load(std::memory_order_relaxed);
      if (successes != route->seen_successes) {
        route->seen_successes = successes;
        bool was_open = route->breaker.is_open();
        if (!was_open) route->breaker.succeeded(Clock::now());
        regain_trust(*route);
      }
      expire(*route);
      watch_age(*route);
      watch_room(*route);
    }
    pool_.sweep(false);
  }
}

/// Notices when a limit on held mail is reached, and when there is room again. Clients are told by the stand-in.
void Control::watch_room(ControlledRoute& route) {
  const FailoverConfig& config = config_of(route);
  bool is_disk_low = config.keep_free > 0 && journal::free_space(journal_.path()) < config.keep_free;
  route.board.is_disk_low.store(is_disk_low, std::memory_order_relaxed);
  std::string limit = is_disk_low                                                           ? "failover.keep_free"
                      : route.board.held.load(std::memory_order_relaxed) >= config.max_held ? "failover.max_held"
                                                                                            : "";
  if (limit == route.limit_reached) return;
  route.limit_reached = limit;
  if (limit.empty()) {
    log(LogLevel::info, "held", {{"route", route.board.name}, {"note", "there is room for held mail again"}});
    return;
  }
  std::string problem = limit + " is reached: senders are told 452 while the primary is away";
  log(LogLevel::error, "held", {{"route", route.board.name}, {"problem", problem}, {"held", route.board.held.load()}});
  calls_.on_held_trouble(route.board.name, "LIMIT REACHED: " + problem);
}

Task<void> Control::probe(ControlledRoute& route) {
  route.prober = std::make_unique<Wakeup>(loop_);
  route.patience = 2 * Duration(route.board.opening_takes.load(std::memory_order_relaxed));
  bool is_well = true;
  for (;;) {
    Deadline last = Clock::now();
    auto due = [&] {
      // Once in doubt, look more often: the answer is wanted soon.
      bool is_in_doubt = (!is_well || route.is_in_doubt) && !route.breaker.is_open();
      Duration interval = config_of(route).probe_interval;
      return last + (is_in_doubt ? std::max(interval / 4, Duration(10)) : interval);
    };
    while (!is_stopping_ && Clock::now() < due()) co_await route.prober->wait(due());
    if (is_stopping_) co_return;
    if (!route.is_configured) continue;
    route.is_in_doubt = false;
    std::string failure = co_await probe_once(route, *route.prober);
    is_well = failure.empty();
    bool was_open = route.breaker.is_open();
    if (is_well) {
      route.breaker.succeeded(Clock::now());
      route.patience = 2 * Duration(route.board.opening_takes.load(std::memory_order_relaxed));
    } else {
      route.breaker.failed(Clock::now(), failure);
      if (was_open) route.patience = std::min(2 * std::max(route.patience, usual_patience), longest_patience);
    }
    apply_breaker(route, was_open);
  }
}

Opening Control::opening_as_self(const ControlledRoute& route) const {
  Opening opening{settings_, route.index, {{"127.0.0.1", 0}, {"127.0.0.1", 25}, ClientName{"localhost", "localhost"}}, Deadline::max()};
  Duration usual = std::max(usual_patience, config_of(route).takeover_after);
  opening.connect_patience = usual;
  opening.by = Clock::now() + std::max(usual, route.patience);
  opening.is_fresh = true;
  opening.waits_for_room = false;
  return opening;
}

/// Looks now and then at the addresses that the probes do not need, so that it is known beforehand whether they will be there.
Task<void> Control::watch_standbys(ControlledRoute& route) {
  route.watcher = std::make_unique<Wakeup>(loop_);
  for (;;) {
    Deadline last = Clock::now();
    auto due = [&] { return last + probes_a_look * config_of(route).probe_interval; };
    while (!is_stopping_ && Clock::now() < due()) co_await route.watcher->wait(due());
    if (is_stopping_) co_return;
    const std::vector<HostPort> upstreams = route.is_configured ? settings_->config.routes[route.index].upstreams : std::vector<HostPort>();
    for (std::size_t i = 0; i < upstreams.size(); ++i) {
      bool is_needed = i == route.probed;
      bool has_changed = !route.is_configured || settings_->config.routes[route.index].upstreams != upstreams;
      if (!is_needed && !has_changed) co_await look_at(route, i);
    }
  }
}

/// Whether it greets. What comes of it is told in the status, and to who chooses the next upstream.
Task<void> Control::look_at(ControlledRoute& route, std::size_t upstream) {
  Opening opening = opening_as_self(route);
  opening.only = upstream;
  UpstreamPool::Opened opened = co_await pool_.open(opening, *route.watcher);
  if (!opened.upstream) co_return;
  opened.upstream->stream.flush("QUIT\r\n");
  co_await opened.upstream->read_reply(*route.watcher, opening.by);
}

/// EHLO and a null transaction on a fresh connection, with TLS where the route wants it. Returns why it failed, or nothing.
Task<std::string> Control::probe_once(ControlledRoute& route, Wakeup& wakeup) {
  Opening opening = opening_as_self(route);
  UpstreamPool::Opened opened = co_await pool_.open(opening, wakeup);
  if (opened.full) co_return "";  // it serves as many of our connections as it takes
  if (!opened.upstream) co_return opened.failure;
  Upstream& upstream = *opened.upstream;
  route.probed = upstream.address;
  route.board.learn_opening(upstream.opening_took.count());
  std::string failure = co_await pool_.greet_as_self(upstream, opening, wakeup);
  if (!failure.empty()) co_return failure;
  route.board.learn_ehlo(upstream.ehlo);
  // What a primary says to the null sender it says for many reasons; only silence and system failures count.
  upstream.stream.flush("MAIL FROM:<>\r\n");
  std::optional<Reply> reply = co_await upstream.read_reply(wakeup, opening.by);
  if (!reply) co_return upstream.failure;
  if (reply->code == 421 || reply->has_status("4.3.")) co_return "it refuses mail: " + reply->summary();
  upstream.stream.flush("RSET\r\n");
  reply = co_await upstream.read_reply(wakeup, opening.by);
  if (!reply) co_return upstream.failure;
  upstream.stream.flush("QUIT\r\n");
  reply = co_await upstream.read_reply(wakeup, opening.by);
  co_return "";
}

}  // namespace holdfast::proxy
