#include "proxy/clock.h"

#include <pthread.h>

#include <algorithm>

namespace holdfast::proxy {
namespace {

using Steady = std::chrono::steady_clock;

/// How long the process has been stopped in all, and what Clock may say until the keeper has looked again. Who reads a new one finds
/// at least the pause that belongs to it: so the clock never goes back.
std::atomic<Clock::duration> paused{Clock::duration::zero()};
std::atomic<Clock::time_point> latest_now{Clock::time_point::max()};

}  // namespace

Clock::time_point Clock::now() {
  time_point latest = latest_now.load(std::memory_order_acquire);
  return std::min(Steady::now() - paused.load(std::memory_order_relaxed), latest);
}

ClockKeeper::ClockKeeper() : thread_([this] { run(); }) {}

ClockKeeper::~ClockKeeper() {
  {
    std::lock_guard lock(mutex_);
    is_stopping_ = true;
  }
  wake_.notify_one();
  thread_.join();
  latest_now = Clock::time_point::max();
}

void ClockKeeper::run() {
  pthread_setname_np(pthread_self(), "clock");
  std::unique_lock lock(mutex_);
  do {
    Clock::time_point seen = Steady::now() - paused.load();
    Clock::time_point now = std::min(seen, latest_now.load());
    paused.store(paused.load() + (seen - now), std::memory_order_relaxed);
    latest_now.store(now + longest_step, std::memory_order_release);
  } while (!wake_.wait_for(lock, tick, [this] { return is_stopping_; }));
}

}  // namespace holdfast::proxy
