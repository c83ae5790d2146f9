// The board of a route: what its sessions on all loops must know at once, and what they note for the control thread.
#pragma once

#include <atomic>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "failover/route_state.h"
#include "proxy/reply.h"

namespace holdfast::proxy {

/// Thread-safe. Lives as long as the process.
class RouteBoard {
 public:
  explicit RouteBoard(std::string route) : name(std::move(route)) {}

  const std::string name;
  std::atomic<failover::State> state{failover::State::pass};
  std::atomic<failover::Mode> mode{failover::Mode::automatic};
  std::atomic<std::uint64_t> held{0};                 ///< entries
  std::atomic<bool> is_disk_low{false};               ///< there is no room for more of them
  std::atomic<std::uint64_t> possible_duplicates{0};  ///< since the start
  /// Messages that came over the relay, by what became of them; since the start.
  struct Messages {
    std::atomic<std::uint64_t> forwarded{0}, held{0}, rejected{0}, deferred{0}, abandoned{0};
  } messages;
  std::atomic<std::uint64_t> successes{0};  ///< the primary took a message; harvested by the control thread

  /// How long the primary lately took to get a new connection ready, in milliseconds: some let everybody wait for their greeting.
  std::atomic<std::int64_t> opening_takes{0};
  std::int64_t stored_opening = 0;  ///< as it is on the disk; the keeper's

  void learn_opening(std::int64_t took) {
    std::int64_t before = opening_takes.load(std::memory_order_relaxed);
    opening_takes.store(before == 0 ? took : (3 * before + took) / 4, std::memory_order_relaxed);
  }

  bool is_held() const { return state.load(std::memory_order_acquire) == failover::State::hold; }

  /// The primary's last positive answer to EHLO, for answering in its place.
  void learn_ehlo(const Reply& reply) {
    std::lock_guard lock(mutex_);
    if (ehlo_ && ehlo_->wire == reply.wire) return;
    ehlo_ = reply;
    is_ehlo_new_ = true;
  }
  std::optional<Reply> ehlo() const {
    std::lock_guard lock(mutex_);
    return ehlo_;
  }
  /// The EHLO once after it changed.
  std::optional<Reply> take_new_ehlo() {
    std::lock_guard lock(mutex_);
    if (!is_ehlo_new_) return std::nullopt;
    is_ehlo_new_ = false;
    return ehlo_;
  }

 private:
  mutable std::mutex mutex_;
  std::optional<Reply> ehlo_;
  bool is_ehlo_new_ = false;
};

/// The boards of all routes. Thread-safe.
class Boards {
 public:
  /// Made when it is not there.
  RouteBoard& of(const std::string& route) {
    std::lock_guard lock(mutex_);
    std::unique_ptr<RouteBoard>& board = boards_[route];
    if (!board) board = std::make_unique<RouteBoard>(route);
    return *board;
  }
  std::vector<RouteBoard*> all() const {
    std::lock_guard lock(mutex_);
    std::vector<RouteBoard*> found;
    for (const auto& [route, board] : boards_) found.push_back(board.get());
    return found;
  }

 private:
  mutable std::mutex mutex_;
  std::map<std::string, std::unique_ptr<RouteBoard>> boards_;
};

}  // namespace holdfast::proxy
