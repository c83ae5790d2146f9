#include "proxy/loop.h"

#include <sys/eventfd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>

#include "proxy/log.h"

namespace holdfast::proxy {
namespace {

[[noreturn]] void give_up(const char* what) {
  std::perror(what);
  std::abort();
}

}  // namespace

Loop::Loop() : scratch_(new char[scratch_size]), poke_(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)) {
  event_config* config = event_config_new();
  event_config_set_flag(config, EVENT_BASE_FLAG_NOLOCK);
  base_.reset(event_base_new_with_config(config));
  event_config_free(config);
  if (!base_ || !poke_) give_up("holdfast: cannot make an event loop");
  event_assign(&poke_event_, base_.get(), poke_.get(), EV_READ | EV_PERSIST, &Loop::on_poked, this);
  event_add(&poke_event_, nullptr);
}

Loop::~Loop() { event_del(&poke_event_); }

void Loop::run(const char* name) {
  pthread_setname_np(pthread_self(), name);
  gather_log(true);
  while (!is_stopping_) {
    event_base_loop(base_.get(), EVLOOP_ONCE);
    now_ = Clock::now();
    run_ready();
    flush_log();
  }
  gather_log(false);
}

void Loop::run_ready() {
  // Resumed coroutines may make others ready, which then run in the same turn.
  for (std::size_t i = 0; i < ready_.size(); ++i) {
    Wakeup* wakeup = ready_[i];
    if (!wakeup) continue;  // gone meanwhile
    wakeup->is_ready_ = false;
    ready_[i] = nullptr;
    if (std::coroutine_handle<> handle = std::exchange(wakeup->waiting_, nullptr)) handle.resume();
  }
  ready_.clear();
}

void Loop::post(std::function<void()> work) {
  bool must_poke;
  {
    std::lock_guard lock(mutex_);
    posted_.push_back(std::move(work));
    must_poke = !std::exchange(is_poked_, true);
  }
  if (must_poke) poke();
}

void Loop::complete(std::vector<std::shared_ptr<journal::Ticket>>& tickets) {
  bool must_poke;
  {
    std::lock_guard lock(mutex_);
    completed_.insert(completed_.end(), std::make_move_iterator(tickets.begin()), std::make_move_iterator(tickets.end()));
    must_poke = !std::exchange(is_poked_, true);
  }
  if (must_poke) poke();
}

void Loop::poke() {
  std::uint64_t one = 1;
  [[maybe_unused]] ssize_t written = ::write(poke_.get(), &one, sizeof one);
}

void Loop::on_poked(evutil_socket_t fd, short, void* self) {
  auto* loop = static_cast<Loop*>(self);
  std::uint64_t count;
  [[maybe_unused]] ssize_t size = ::read(fd, &count, sizeof count);
  std::vector<std::function<void()>> posted;
  std::vector<std::shared_ptr<journal::Ticket>> completed;
  {
    std::lock_guard lock(loop->mutex_);
    posted.swap(loop->posted_);
    completed.swap(loop->completed_);
    loop->is_poked_ = false;
  }
  for (const auto& ticket : completed)
    if (Wakeup* wakeup = static_cast<LoopTicket&>(*ticket).wakeup_) wakeup->fire();
  for (const auto& work : posted) work();
}

Wakeup::Wakeup(Loop& loop) : loop_(loop) { event_assign(&timer_, loop.base(), -1, 0, &Wakeup::on_timer, this); }

Wakeup::~Wakeup() {
  event_del(&timer_);
  if (is_ready_) std::replace(loop_.ready_.begin(), loop_.ready_.end(), this, static_cast<Wakeup*>(nullptr));
}

void Wakeup::fire() {
  is_fired_ = true;
  make_ready();
}

void Wakeup::make_ready() {
  if (!waiting_ || is_ready_) return;
  is_ready_ = true;
  loop_.ready_.push_back(this);
}

void Wakeup::suspend(std::coroutine_handle<> handle, Deadline deadline) {
  waiting_ = handle;
  deadline_ = deadline;
  // A timer that goes off too early only looks and is set again: most waits are over long before their deadline, and
  // setting a timer for each would cost more than they do.
  if (deadline != Deadline::max() && (armed_for_ > deadline)) arm(deadline);
}

void Wakeup::arm(Deadline deadline) {
  auto left = std::max(deadline - Clock::now(), Clock::duration::zero());
  auto us = std::chrono::duration_cast<std::chrono::microseconds>(left).count() + 1;
  timeval delay{static_cast<time_t>(us / 1000000), static_cast<suseconds_t>(us % 1000000)};
  event_add(&timer_, &delay);
  armed_for_ = deadline;
}

void Wakeup::on_timer(evutil_socket_t, short, void* self) {
  auto* wakeup = static_cast<Wakeup*>(self);
  wakeup->armed_for_ = Deadline::max();
  if (!wakeup->waiting_ || wakeup->deadline_ == Deadline::max()) return;
  if (Clock::now() >= wakeup->deadline_)
    wakeup->make_ready();
  else
    wakeup->arm(wakeup->deadline_);
}

}  // namespace holdfast::proxy
