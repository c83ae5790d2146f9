// An event loop, and Wakeup: what a coroutine of the loop waits on.
//
// One thread a loop; everything that belongs to a loop is touched by its thread alone, except post() and complete().
#pragma once

#include <event2/event.h>
#include <event2/event_struct.h>

#include <chrono>
#include <coroutine>
#include <functional>
#include <memory>
#include <mutex>
#include <vector>

#include "journal/files.h"
#include "journal/ticket.h"
#include "proxy/clock.h"
#include "proxy/units.h"

namespace holdfast::proxy {

using Deadline = Clock::time_point;

class Wakeup;

class Loop : public journal::CompletionQueue {
 public:
  Loop();
  ~Loop() override;
  Loop(const Loop&) = delete;
  Loop& operator=(const Loop&) = delete;

  /// Runs until stop().
  void run(const char* name = "loop");
  /// From the loop's own thread.
  void stop() { is_stopping_ = true; }

  /// Runs work on the loop's thread, soon. Thread-safe.
  void post(std::function<void()> work);
  /// Wakes whoever waits for the tickets; they are LoopTickets. Thread-safe.
  void complete(std::vector<std::shared_ptr<journal::Ticket>>& tickets) override;

  event_base* base() { return base_.get(); }
  /// The time at which this turn of the loop began.
  Deadline now() const { return now_; }
  /// Memory for reading into, shared by all streams of the loop; its content lasts until the next read.
  char* scratch() { return scratch_.get(); }
  static constexpr std::size_t scratch_size = 64 * 1024;

 private:
  friend class Wakeup;
  struct Free {
    void operator()(event_base* base) const { event_base_free(base); }
  };
  static void on_poked(evutil_socket_t, short, void* loop);
  void poke();
  void run_ready();

  std::unique_ptr<event_base, Free> base_;
  std::unique_ptr<char[]> scratch_;
  std::vector<Wakeup*> ready_;
  Deadline now_ = Clock::now();
  bool is_stopping_ = false;
  FileDescriptor poke_;
  event poke_event_;

  std::mutex mutex_;
  std::vector<std::function<void()>> posted_;
  std::vector<std::shared_ptr<journal::Ticket>> completed_;
  bool is_poked_ = false;
};

/// One waiting place for one coroutine. Whatever the coroutine waits for fires it; the coroutine then looks for itself at
/// what has happened: so nothing is lost, and several events of one turn cost one resumption.
class Wakeup {
 public:
  explicit Wakeup(Loop& loop);
  ~Wakeup();
  Wakeup(const Wakeup&) = delete;
  Wakeup& operator=(const Wakeup&) = delete;

  /// Resumes the waiting coroutine at the end of this turn, or makes the next wait return at once.
  void fire();

  /// co_await wait(deadline): true when fired, false when the deadline passed first.
  auto wait(Deadline deadline) { return Awaiter{*this, deadline}; }

  Loop& loop() { return loop_; }

 private:
  friend class Loop;
  struct Awaiter {
    Wakeup& wakeup;
    Deadline deadline;
    bool await_ready() noexcept { return wakeup.is_fired_; }
    void await_suspend(std::coroutine_handle<> handle) noexcept { wakeup.suspend(handle, deadline); }
    bool await_resume() noexcept { return std::exchange(wakeup.is_fired_, false); }
  };
  static void on_timer(evutil_socket_t, short, void* wakeup);
  void suspend(std::coroutine_handle<> handle, Deadline deadline);
  void arm(Deadline deadline);
  void make_ready();

  Loop& loop_;
  std::coroutine_handle<> waiting_;
  bool is_fired_ = false;
  bool is_ready_ = false;
  Deadline deadline_ = Deadline::max();
  Deadline armed_for_ = Deadline::max();  ///< when the timer goes off; it may be earlier than the deadline
  event timer_;
};

/// A ticket that wakes a coroutine of a loop.
class LoopTicket : public journal::Ticket {
 public:
  LoopTicket(Loop& loop, Wakeup& wakeup) : Ticket(loop), wakeup_(&wakeup) {}
  /// From then on nobody is woken. To be called before the wakeup goes.
  void forget() { wakeup_ = nullptr; }

 private:
  friend class Loop;
  Wakeup* wakeup_;
};

}  // namespace holdfast::proxy
