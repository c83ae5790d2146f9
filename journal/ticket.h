// Tickets: how the writer's thread tells the threads that feed it what has become of their drafts and records.
#pragma once

#include <atomic>
#include <memory>
#include <vector>

#include "journal/cell.h"
#include "journal/result.h"

namespace holdfast::journal {

class Segment;
class Ticket;

/// Where the writer tells a thread that something of its own has moved. One a loop.
class CompletionQueue {
 public:
  virtual ~CompletionQueue() = default;
  /// Called on the writer's thread, once a group. Must not block.
  virtual void complete(std::vector<std::shared_ptr<Ticket>>& tickets) = 0;
};

/// What the writer and the feeding thread share about a draft or a record. Derive from it to know whom to wake.
class Ticket {
 public:
  explicit Ticket(CompletionQueue& queue) : queue_(queue) {}
  virtual ~Ticket() = default;

  /// The record is committed and synced. From then on id() names it.
  bool is_committed() const { return id_.load(std::memory_order_acquire) != 0; }
  bool has_failed() const { return failed_.load(std::memory_order_acquire); }
  bool is_settled() const { return is_committed() || has_failed(); }
  RecordId id() const { return id_.load(std::memory_order_acquire); }
  /// Only once has_failed().
  const Error& error() const { return error_; }

 private:
  friend class Writer;
  friend class Draft;
  /// With more bytes than this not stored yet, the feeding thread should wait; it is told when there are fewer.
  static constexpr std::size_t flood_mark = 256 * 1024;
  CompletionQueue& queue_;
  std::atomic<RecordId> id_{0};
  std::atomic<bool> failed_{false};
  Error error_{ErrorCode::io, {}};
  std::atomic<std::size_t> unstored_{0};  ///< bytes given to the writer and not yet stored
  // The writer's own:
  std::vector<Extent> extents_;
  std::shared_ptr<Segment> home_;  ///< the segment that extents_ are in
};

}  // namespace holdfast::journal
