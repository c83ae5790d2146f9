#include "journal/draft.h"

#include <algorithm>

#include "journal/writer.h"

namespace holdfast::journal {
namespace {
/// How much of a large message's beginning is kept for reading its header.
constexpr std::size_t beginning_size = 16 * 1024;
}  // namespace

Draft::Draft(Writer& writer, std::shared_ptr<Ticket> ticket) : writer_(writer), ticket_(std::move(ticket)) {
  random_bytes(content_id_.data(), content_id_.size());
}

void Draft::append(std::string_view content) {
  size_ += content.size();
  while (!content.empty()) {
    // A full frame is sealed only when more follows: the last frame is marked as such.
    if (pending_.size() == frame_plain_size) submit_full_frame();
    std::size_t taken = std::min(content.size(), frame_plain_size - pending_.size());
    pending_.append(content.substr(0, taken));
    content.remove_prefix(taken);
  }
}

Writer::Job Draft::seal_pending(bool last) {
  Writer::Job job;
  job.ticket = ticket_;
  job.key = writer_.current_key();
  job.content_id = content_id_;
  job.frame_index = frames_;
  job.frame_is_last = last;
  job.frame = seal_frame(job.key->key, content_id_, frames_, last, pending_);
  ticket_->unstored_.fetch_add(job.frame.size(), std::memory_order_acq_rel);
  return job;
}

void Draft::submit_full_frame() {
  if (frames_ == 0) beginning_ = pending_.substr(0, beginning_size);
  hash_.update(pending_);
  Writer::Job job = seal_pending(false);
  ++frames_;
  pending_.clear();
  writer_.submit(std::move(job));
}

void Draft::finish(MessageRecord record, const std::optional<OutcomeRecord>& together) {
  Writer::Job job = last_job(std::move(record));
  if (together) job.companions.push_back(writer_.record_job(RecordKind::outcome, encode(*together)));
  writer_.submit(std::move(job));
}

void Draft::finish_together(std::vector<Ending> endings) {
  Writer::Job job = endings.front().draft->last_job(std::move(endings.front().record));
  for (std::size_t i = 1; i < endings.size(); ++i) job.companions.push_back(endings[i].draft->last_job(std::move(endings[i].record)));
  endings.front().draft->writer_.submit(std::move(job));
}

Writer::Job Draft::last_job(MessageRecord record) {
  record.size = size_;
  record.content_id = content_id_;
  Writer::Job job = seal_pending(true);
  if (frames_ > 0) {
    hash_.update(pending_);
    record.content_hash = hash_.finish();
  } else {
    job.unhashed = pending_;  // a copy: whole() is still asked for
  }
  job.message = std::move(record);
  job.is_urgent = true;
  return job;
}

}  // namespace holdfast::journal
