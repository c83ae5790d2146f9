#include "proxy/upstream.h"

#include <fmt/format.h>

#include <algorithm>

#include "proxy/log.h"

namespace holdfast::proxy {
namespace {

/// A primary that has not greeted by then has no room, it seems, for more connections than it has.
constexpr Duration room_wanted_after{200};
/// One that is full is asked again so soon, and then less and less often.
constexpr Duration first_pause_for_room{25}, longest_pause_for_room{200};
/// So long an address may be silent though there are others, even when there is no hurry.
constexpr Duration shortest_share{2000};

}  // namespace

/// Somebody's place among those who wait for the primary to have room: for another's connection, or, where that will not do, for a new one.
class UpstreamPool::Place {
 public:
  Place(UpstreamPool& pool, const Opening& opening, std::shared_ptr<Occupancy::Address> room, Wakeup& wakeup)
      : pool_(pool), route_(opening.config().name), is_taker_(!opening.is_fresh), is_counted_(std::move(room), &Occupancy::Address::waiting) {
    Waiting& waiting = pool_.waiting_[route_];
    if (is_taker_) {
      place_ = waiting.takers.insert(waiting.takers.end(), &wakeup);
    } else {
      ++waiting.others;
      pool_.make_room(route_);
    }
  }
  ~Place() {
    Waiting& waiting = pool_.waiting_[route_];
    if (is_taker_) {
      waiting.takers.erase(place_);
      pool_.wake_next_taker(route_);  // several may have become free before this one was awake
    } else {
      --waiting.others;
    }
  }
  Place(const Place&) = delete;
  Place& operator=(const Place&) = delete;

 private:
  UpstreamPool& pool_;
  const std::string& route_;
  bool is_taker_;
  std::list<Wakeup*>::iterator place_;
  Occupancy::One is_counted_;
};

Upstream::Poll Upstream::poll_reply(Reply& reply) {
  std::size_t consumed = 0;
  switch (ReplyParser().parse(stream.input(), reply, consumed)) {
    case ReplyParser::State::complete: stream.consume(consumed); return Poll::reply;
    case ReplyParser::State::malformed: failure = "it answered with something that is no SMTP reply"; return Poll::failed;
    case ReplyParser::State::incomplete: break;
  }
  if (stream.is_alive()) return Poll::nothing;
  failure = "it closed the connection";
  return Poll::failed;
}

Task<std::optional<Reply>> Upstream::read_reply(Wakeup& wakeup, Deadline deadline) {
  for (;;) {
    Reply reply;
    Poll found = poll_reply(reply);
    if (found == Poll::reply) co_return reply;
    if (found == Poll::failed) co_return std::nullopt;
    bool in_time = co_await wakeup.wait(deadline);
    if (!in_time) {
      failure = "it did not answer in time";
      co_return std::nullopt;
    }
  }
}

failover::UpstreamOrder& UpstreamPool::order(const RouteConfig& route) {
  auto found = orders_.find(route.name);
  bool is_current = found != orders_.end() && found->second.of == route.upstreams;
  if (!is_current) found = orders_.insert_or_assign(route.name, Order{route.upstreams, failover::UpstreamOrder(route.upstreams.size())}).first;
  return found->second.order;
}

void UpstreamPool::broke_off(const Settings& settings, std::size_t route, std::size_t address, const std::string& why) {
  const RouteConfig& config = settings.config.routes[route];
  order(config).broke_off(address, loop_.now());
  tell_of_failure(config, address, why);
}

void UpstreamPool::tell_of_failure(const RouteConfig& config, std::size_t address, const std::string& why) {
  bool is_news = occupancy_.of(config.upstreams[address])->note(why);
  if (is_news) log(LogLevel::warning, "upstream", {{"route", config.name}, {"address", to_string(config.upstreams[address])}, {"problem", why}});
}

const Reply* UpstreamPool::goodbye(const std::string& route) const {
  auto found = goodbyes_.find(route);
  return found == goodbyes_.end() ? nullptr : &found->second;
}

Task<std::unique_ptr<Upstream>> UpstreamPool::reuse(const Opening& opening, Wakeup& wakeup) {
  const RouteConfig& config = opening.config();
  std::list<std::unique_ptr<Idle>>& idle = idle_[config.name];
  while (!idle.empty()) {
    std::unique_ptr<Idle> candidate = std::move(idle.back());
    idle.pop_back();
    if (!candidate->is_usable() || candidate->settings != opening.settings) continue;
    std::unique_ptr<Upstream> upstream = std::move(candidate->upstream);
    upstream->stream.give_to(wakeup);
    upstream->was_reused = upstream->is_shared = true;
    if (config.identity != Identity::xclient) co_return upstream;
    std::string failure = co_await send_xclient(*upstream, opening, wakeup);
    if (failure.empty() && upstream->greeting.is_positive()) co_return upstream;
  }
  co_return nullptr;
}

Task<UpstreamPool::Opened> UpstreamPool::open(Opening opening, Wakeup& wakeup) {
  // A client in the middle of something cannot wait for as long as one that has not been greeted.
  Deadline latest = std::min(loop_.now() + opening.timeouts().greeting, opening.is_fresh ? opening.by : Deadline::max());
  const Deadline by = opening.by;
  Duration pause = first_pause_for_room;
  std::optional<Place> place;
  for (;;) {
    Opened opened;
    if (!opening.is_fresh) opened.upstream = co_await reuse(opening, wakeup);
    if (opened.upstream) co_return opened;
    opened = co_await try_addresses(opening, wakeup);
    if (!opened.full) co_return opened;
    bool is_serving = opened.full->is_serving();
    bool must_wait = opening.waits_for_room && Clock::now() < (is_serving ? latest : std::min(latest, by));
    if (!must_wait && !is_serving) opened.full.reset();  // it refuses everybody
    if (!must_wait) co_return opened;
    if (!place) place.emplace(*this, opening, opened.full, wakeup);
    co_await wait_for_room(opening, wakeup, pause, latest);
    if (opening.is_moot()) co_return opened;
    pause = std::min(2 * pause, longest_pause_for_room);
    // It has answered: it may take as long for its next answer, however long we have waited.
    opening.by = std::max(by, Clock::now() + opening.config().failover.takeover_after);
  }
}

/// Until another's connection is free, or the pause is over and the primary may be asked again: of all who wait for a connection, the
/// first in the line does.
Task<void> UpstreamPool::wait_for_room(const Opening& opening, Wakeup& wakeup, Duration pause, Deadline latest) {
  const std::string& route = opening.config().name;
  for (;;) {
    Deadline next = std::min(Clock::now() + pause, latest);
    while (Clock::now() < next) {
      co_await wakeup.wait(next);
      if (opening.is_moot()) co_return;
      if (!opening.is_fresh && !idle_[route].empty()) co_return;
    }
    if (opening.is_fresh || next == latest || waiting_[route].takers.front() == &wakeup) co_return;
  }
}

/// In the order in which they are to be tried. Where the primary is to see the client's address, those that it can reach, if there are any.
std::vector<UpstreamPool::Candidate> UpstreamPool::candidates(const Opening& opening) {
  const RouteConfig& config = opening.config();
  std::vector<Candidate> candidates;
  for (std::size_t index : order(config).order(loop_.now(), config.is_balanced))
    if (opening.only.value_or(index) == index) candidates.push_back({index, resolver_.addresses(config.upstreams[index])});
  if (config.identity != Identity::transparent) return candidates;
  auto is_in_reach = [&](const SocketAddress& address) { return source_for(opening.client.client, address) != ConnectFrom::nowhere; };
  std::vector<Candidate> in_reach;
  for (const Candidate& candidate : candidates) {
    Candidate kept{candidate.index, {}};
    std::copy_if(candidate.addresses.begin(), candidate.addresses.end(), std::back_inserter(kept.addresses), is_in_reach);
    if (!kept.addresses.empty()) in_reach.push_back(std::move(kept));
  }
  return in_reach.empty() ? candidates : in_reach;
}

Task<UpstreamPool::Opened> UpstreamPool::try_addresses(const Opening& opening, Wakeup& wakeup) {
  const RouteConfig& config = opening.config();
  Opened opened;
  opened.failure = "no address of the primary answers";
  std::vector<Candidate> candidates = this->candidates(opening);
  std::size_t left = 0;
  for (const Candidate& candidate : candidates) left += candidate.addresses.size();
  for (const Candidate& candidate : candidates) {
    Opened tried = co_await try_upstream(candidate, left, opening, wakeup);
    if (tried.upstream) co_return tried;
    if (!tried.refusal && opening.is_moot()) co_return opened;
    left -= candidate.addresses.size();
    bool is_there = (tried.full && tried.full->is_serving()) || (tried.refusal && tried.refusal->is_about_client());
    if (!is_there) order(config).failed(candidate.index, loop_.now());
    if (!is_there) tell_of_failure(config, candidate.index, tried.failure);
    if (tried.refusal) opened.refusal = std::move(tried.refusal);
    if (tried.full) opened.full = std::move(tried.full);
    opened.failure = fmt::format("{}: {}", to_string(config.upstreams[candidate.index]), tried.failure);
  }
  co_return opened;
}

/// One of the route's upstreams, at its addresses in turn until one greets. left: how many addresses there are from its first on.
Task<UpstreamPool::Opened> UpstreamPool::try_upstream(const Candidate& candidate, std::size_t left, const Opening& opening, Wakeup& wakeup) {
  Opened tried;
  tried.failure = "its name has no address in DNS";
  for (const SocketAddress& address : candidate.addresses) {
    Deadline began = Clock::now();
    Opening attempt = opening;
    attempt.by = share_of_time(opening, left--);
    std::unique_ptr<Upstream> upstream;
    do {
      upstream.reset();
      tried.failure = co_await connect_for_client(address, candidate.index, attempt, wakeup, upstream, tried.refusal);
      if (upstream && upstream->is_superseded) tried.upstream = co_await reuse(opening, wakeup);
      if (tried.upstream) co_return tried;
    } while (upstream && upstream->is_superseded);
    if (!tried.failure.empty()) continue;
    if (upstream->greeting.is_positive()) {
      answers_again(*upstream, opening);
      upstream->opening_took = std::chrono::duration_cast<Duration>(Clock::now() - began);
      tried.upstream = std::move(upstream);
      co_return tried;
    }
    // It is there and says no: its word, unless another address says yes.
    tried.failure = "it refuses: " + upstream->greeting.summary();
    tried.refusal = upstream->greeting;
    if (upstream->is_full) tried.full = upstream->room;
  }
  co_return tried;
}

void UpstreamPool::answers_again(const Upstream& upstream, const Opening& opening) {
  const RouteConfig& config = opening.config();
  order(config).succeeded(upstream.address, loop_.now());
  bool is_news = upstream.room->note("");
  if (is_news)
    log(LogLevel::info, "upstream",
        {{"route", config.name}, {"address", to_string(config.upstreams[upstream.address])}, {"note", "it answers again"}});
}

/// One that is silent must leave time for the others.
Deadline UpstreamPool::share_of_time(const Opening& opening, std::size_t addresses_left) const {
  if (addresses_left <= 1) return opening.by;
  Deadline now = Clock::now();
  if (opening.by == Deadline::max()) return now + std::max(shortest_share, opening.config().failover.takeover_after);
  return now + std::max(Duration(0), std::chrono::duration_cast<Duration>(opening.by - now)) / addresses_left;
}

/// When to wait no longer for the primary to turn to us: as it shows no life to anybody for takeover_after. One that has its hands full
/// lets newcomers wait in its queue, and is not dead.
Deadline UpstreamPool::due_for_greeting(const Opening& opening, std::size_t address, Deadline latest) {
  const RouteConfig& config = opening.config();
  return std::min(latest, std::max(opening.by, order(config).states()[address].last_life + config.failover.takeover_after));
}

Task<std::optional<Reply>> UpstreamPool::read_greeting(Upstream& upstream, const Opening& opening, Wakeup& wakeup) {
  const std::string& route = opening.config().name;
  Deadline latest = loop_.now() + opening.timeouts().greeting, waits_from = loop_.now() + room_wanted_after;
  std::optional<Place> place;
  std::optional<Reply> greeting;
  while (!greeting && upstream.failure.empty()) {
    Reply reply;
    Upstream::Poll found = upstream.poll_reply(reply);
    if (found == Upstream::Poll::reply) greeting = std::move(reply);
    if (found != Upstream::Poll::nothing) break;
    upstream.is_superseded = place && !opening.is_fresh && !idle_[route].empty();
    if (upstream.is_superseded) break;
    if (opening.is_moot()) {
      upstream.failure = "nobody waits for it any more";
      break;
    }
    Deadline due = due_for_greeting(opening, upstream.address, latest);
    bool in_time = co_await wakeup.wait(place ? due : std::min(due, waits_from));
    if (in_time) continue;
    if (Clock::now() >= due_for_greeting(opening, upstream.address, latest)) upstream.failure = "it did not answer in time";
    if (!place && Clock::now() >= waits_from) place.emplace(*this, opening, upstream.room, wakeup);
  }
  if (upstream.is_superseded) upstream.failure = "another connection became free";
  co_return greeting;
}

void UpstreamPool::lives(const Settings& settings, std::size_t route, const Upstream& upstream) {
  order(settings.config.routes[route]).lives(upstream.address, loop_.now());
}

/// A connection that the primary lets wait takes the place of an idle one.
void UpstreamPool::make_room(const std::string& route) {
  auto found = idle_.find(route);
  if (found == idle_.end() || found->second.empty()) return;
  std::unique_ptr<Idle> oldest = std::move(found->second.front());
  found->second.pop_front();
  if (oldest->is_usable()) oldest->upstream->stream.flush("QUIT\r\n");
}

void UpstreamPool::give_back(std::shared_ptr<const Settings> settings, std::size_t route, std::unique_ptr<Upstream> upstream) {
  const RouteConfig& config = settings->config.routes[route];
  const ReuseConfig& reuse = settings->config.reuse;
  std::list<std::unique_ptr<Idle>>& idle = idle_[config.name];
  bool is_kept = upstream->may_be_reused && !config.is_client_known_first() && upstream->stream.is_alive() && upstream->stream.input().empty() &&
                 upstream->stream.unsent() == 0 && upstream->transactions < reuse.transactions && idle.size() < reuse.connections &&
                 !has_others_waiting(config.name, *upstream) && takes_another_greeting(*upstream);
  if (!is_kept) {
    if (upstream->stream.is_alive()) upstream->stream.flush("QUIT\r\n");
    return;
  }
  idle.push_back(std::make_unique<Idle>(loop_, std::move(upstream), loop_.now() + reuse.idle, settings));
  wake_next_taker(config.name);
}

/// Somebody for whom this connection will not do, or on another loop.
bool UpstreamPool::has_others_waiting(const std::string& route, const Upstream& upstream) const {
  auto found = waiting_.find(route);
  std::size_t takers = found == waiting_.end() ? 0 : found->second.takers.size();
  return takers == 0 && upstream.room->waiting.load(std::memory_order_relaxed) > 0;
}

void UpstreamPool::wake_next_taker(const std::string& route) {
  std::list<Wakeup*>& takers = waiting_[route].takers;
  if (!takers.empty() && !idle_[route].empty()) takers.front()->fire();
}

void UpstreamPool::sweep(bool all) {
  for (auto& [route, idle] : idle_)
    idle.remove_if([&](const std::unique_ptr<Idle>& one) {
      bool is_over = all || !one->is_usable() || one->expires <= loop_.now() || has_others_waiting(route, *one->upstream);
      if (is_over && one->is_usable()) one->upstream->stream.flush("QUIT\r\n");
      return is_over;
    });
}

}  // namespace holdfast::proxy
