#include "proxy/client_names.h"

#include <netdb.h>
#include <pthread.h>

#include <algorithm>
#include <cctype>
#include <string_view>
#include <thread>
#include <utility>

#include "proxy/log.h"
#include "proxy/network.h"
#include "proxy/thread_shortage.h"

namespace holdfast::proxy {
namespace {

constexpr std::size_t most_threads = 50, most_queued = 1000, most_known = 20'000;
constexpr auto idle_thread_ends_after = std::chrono::seconds(30);
constexpr Duration known_for{300'000}, unsure_for{10'000};
/// So often it is looked whether anybody still waits: an operator's hold wakes nobody.
constexpr Duration answer_look_interval{200};
/// A client waits so long before it is greeted. Where DNS answers nobody, no client waits long.
constexpr Duration patience{5000}, patience_with_silence{200};

/// Letters, digits, hyphens and dots in their places, and not only digits: what a primary may be told without harm.
bool is_host_name(std::string_view name) {
  auto is_one_of_it = [](char c) { return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '-' || c == '_' || c == '.'; };
  bool is_well_formed = !name.empty() && name.size() <= 255 && name.front() != '.' && name.back() != '.' && name.find("..") == std::string_view::npos;
  return is_well_formed && std::all_of(name.begin(), name.end(), is_one_of_it) && name.find_first_not_of("0123456789.") != std::string_view::npos;
}

}  // namespace

ClientName ClientNames::look_up(const std::string& address) {
  ClientName found;
  std::optional<SocketAddress> asked = to_socket_address({address, 0});
  if (!asked) return found;
  char name[NI_MAXHOST];
  int failure = ::getnameinfo(asked->get(), asked->size, name, sizeof name, nullptr, 0, NI_NAMEREQD);
  found.is_reverse_unsure = found.is_verified_unsure = failure == EAI_AGAIN;
  if (failure != 0 || !is_host_name(name)) return found;
  found.reverse = name;
  addrinfo hints{}, *addresses = nullptr;
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_family = asked->storage.ss_family;
  failure = ::getaddrinfo(name, nullptr, &hints, &addresses);
  found.is_verified_unsure = failure == EAI_AGAIN;
  if (failure != 0) return found;
  for (const addrinfo* one = addresses; one; one = one->ai_next) {
    SocketAddress candidate;
    std::copy_n(reinterpret_cast<const char*>(one->ai_addr), one->ai_addrlen, reinterpret_cast<char*>(&candidate.storage));
    candidate.size = one->ai_addrlen;
    if (to_endpoint(candidate).address == to_endpoint(*asked).address) found.verified = name;
  }
  ::freeaddrinfo(addresses);
  return found;
}

Task<ClientName> ClientNames::find(std::string address, Wakeup& wakeup, std::function<bool()> is_moot) {
  auto answer = std::make_shared<Answer>();
  answer->name.is_reverse_unsure = answer->name.is_verified_unsure = true;
  answer->wakeup = &wakeup;
  Deadline by = Clock::now() + ask(address, wakeup.loop(), answer);
  while (!answer->is_there && Clock::now() < by && !(is_moot && is_moot())) co_await wakeup.wait(std::min(by, Clock::now() + answer_look_interval));
  answer->wakeup = nullptr;
  if (!answer->is_there && Clock::now() >= by) tell_of_silence(address);
  co_return answer->name;
}

/// Once, until it answers again: whoever wonders why clients are greeted late finds it in the log.
void ClientNames::tell_of_silence(const std::string& address) {
  std::lock_guard lock(state_->mutex);
  if (std::exchange(state_->is_silence_told, true)) return;
  log(LogLevel::warning, "dns",
      {{"client", address},
       {"problem", "DNS does not say in time what clients are called: they wait for it, and the primary is told that it is not known now"},
       {"remedy", "see /etc/resolv.conf, or have this machine's resolver repaired"}});
}

/// Returns how long to wait for the answer.
///
/// @param loop  of who waits
Duration ClientNames::ask(const std::string& address, Loop& loop, const std::shared_ptr<Answer>& answer) {
  std::lock_guard lock(state_->mutex);
  auto known = state_->known.find(address);
  if (known != state_->known.end() && Clock::now() < known->second.until) {
    answer->name = known->second.name;
    answer->is_there = true;
    return Duration(0);
  }
  bool is_asked = state_->asked.count(address) > 0;
  if (state_->is_stopping || (!is_asked && state_->queue.size() >= most_queued)) return Duration(0);
  if (state_->asked.empty()) state_->last_answer = Clock::now();  // it was not asked anything
  bool is_silent = Clock::now() - state_->last_answer > patience;
  std::vector<Asker>& askers = state_->asked[address];
  askers.emplace_back(&loop, answer);
  if (!is_asked) {
    state_->queue.push_back(address);
    if (state_->idle < state_->queue.size() && state_->threads < most_threads) add_thread();
    state_->wake.notify_one();
  }
  return is_silent ? patience_with_silence : patience;
}

void ClientNames::add_thread() {
  try {
    std::thread([state = state_] { run(state); }).detach();
    ++state_->threads;
  } catch (const std::system_error& error) {  // those that there are go on
    log(LogLevel::warning, "dns", {{"problem", "clients' names wait longer: " + thread_shortage(error).message}});
  }
}

void ClientNames::run(std::shared_ptr<State> state) {
  pthread_setname_np(pthread_self(), "client names");
  std::unique_lock lock(state->mutex);
  for (;;) {
    ++state->idle;
    bool has_work = state->wake.wait_for(lock, idle_thread_ends_after, [&] { return state->is_stopping || !state->queue.empty(); });
    --state->idle;
    if (state->is_stopping || !has_work) break;
    std::string address = std::move(state->queue.front());
    state->queue.pop_front();
    lock.unlock();
    ClientName name = look_up(address);
    lock.lock();
    remember(*state, address, name);
    for (auto& [loop, answer] : state->asked[address])
      loop->post([answer = std::move(answer), name] {
        answer->name = name;
        answer->is_there = true;
        if (answer->wakeup) answer->wakeup->fire();
      });
    state->asked.erase(address);
  }
  --state->threads;
}

void ClientNames::remember(State& state, const std::string& address, const ClientName& name) {
  bool is_unsure = name.is_reverse_unsure || name.is_verified_unsure;
  if (!is_unsure) state.last_answer = Clock::now();
  if (!is_unsure && std::exchange(state.is_silence_told, false)) log(LogLevel::info, "dns", {{"note", "DNS tells what clients are called again"}});
  if (state.known.size() >= most_known) std::erase_if(state.known, [](const auto& one) { return one.second.until <= Clock::now(); });
  if (state.known.size() >= most_known) state.known.clear();
  state.known[address] = {name, Clock::now() + (is_unsure ? unsure_for : known_for)};
}

void ClientNames::stop() {
  std::lock_guard lock(state_->mutex);
  state_->is_stopping = true;
  for (auto& [address, askers] : state_->asked) askers.clear();
  state_->wake.notify_all();
}

}  // namespace holdfast::proxy
