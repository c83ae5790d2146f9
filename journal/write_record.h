// Writing one record and waiting for it: for threads that may block, not for loops.
#pragma once

#include <condition_variable>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "journal/writer.h"

namespace holdfast::journal {

/// Submits a record and waits until it is committed, or cannot be. Blocks.
inline Result<RecordId> write_record(Writer& writer, RecordKind kind, std::string encoded) {
  struct Waiting : CompletionQueue {
    std::mutex mutex;
    std::condition_variable wake;
    bool is_told = false;
    void complete(std::vector<std::shared_ptr<Ticket>>&) override {
      std::lock_guard lock(mutex);
      is_told = true;
      wake.notify_all();
    }
  } waiting;
  auto ticket = std::make_shared<Ticket>(waiting);
  writer.submit_urgent(kind, std::move(encoded), ticket);
  std::unique_lock lock(waiting.mutex);
  // The ticket says it a little earlier, but the writer may be about to tell: this must be there for that.
  waiting.wake.wait(lock, [&] { return waiting.is_told; });
  if (ticket->has_failed()) return ticket->error();
  return ticket->id();
}

}  // namespace holdfast::journal
