// A draft: one message on its way into the journal, fed piece by piece by the thread that receives it.
//
// The content is cut into frames and sealed on the caller's thread, and hashed there when it is large; the writer stores it, and
// hashes what is small, many at once. Back-pressure: while is_flooded(), feed no more and wait for the completion queue.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "journal/cell.h"
#include "journal/record.h"
#include "journal/result.h"
#include "journal/writer.h"

namespace holdfast::journal {

class Draft {
 public:
  /// The ticket must be new. The writer must outlive the draft.
  Draft(Writer& writer, std::shared_ptr<Ticket> ticket);
  Draft(const Draft&) = delete;
  Draft& operator=(const Draft&) = delete;

  /// Adds content. Full frames go to the writer at once.
  void append(std::string_view content);

  /// True while so much waits for the disk that no more should be fed.
  bool is_flooded() const { return ticket_->unstored_.load(std::memory_order_acquire) > Ticket::flood_mark; }

  std::uint64_t size() const { return size_; }
  /// The first bytes of the content, up to a frame: for looking at the header. Valid until append() or finish().
  std::string_view beginning() const { return beginning_.empty() ? std::string_view(pending_) : beginning_; }
  /// The whole content while it is small enough never to have left this object; else nothing.
  std::string_view whole() const { return frames_ == 0 ? std::string_view(pending_) : std::string_view(); }

  /// Ends the content and asks for the record to be committed and synced, with the content's size, hash and id in it. The
  /// ticket tells when it is done. Call once, last.
  /// @param together  another entry's outcome that is committed with it, or not at all: what this message is sent for
  void finish(MessageRecord record, const std::optional<OutcomeRecord>& together = std::nullopt);
  /// The same for several drafts, whose records are committed together, or none of them is.
  struct Ending {
    Draft* draft;
    MessageRecord record;
  };
  static void finish_together(std::vector<Ending> endings);

  const Ticket& ticket() const { return *ticket_; }

 private:
  Writer::Job last_job(MessageRecord record);
  Writer::Job seal_pending(bool last);
  void submit_full_frame();

  Writer& writer_;
  std::shared_ptr<Ticket> ticket_;
  ContentId content_id_;
  Sha256 hash_;            ///< of the frames that have gone
  std::string pending_;    ///< content of the next frame
  std::string beginning_;  ///< a copy of the first frame's header part, kept once it has gone
  std::uint32_t frames_ = 0;
  std::uint64_t size_ = 0;
};

}  // namespace holdfast::journal
