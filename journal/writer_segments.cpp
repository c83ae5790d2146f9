// The writer's segments: when a new one is begun, and what goes along into it.
#include <fmt/format.h>

#include <algorithm>

#include "journal/writer.h"

namespace holdfast::journal {

/// Its map is full, or it is damaged.
bool Writer::needs_new_segment(const Error& error) const {
  if (tail_.next_cell == segment_->header().first_cell) return false;
  bool is_full = error.code == ErrorCode::no_space && segment_->environment().used_bytes() > options_.segment_size / 2;
  return is_full || error.code == ErrorCode::corrupt;
}

/// Everything in the group goes into a segment of its own.
void Writer::retry_in_new_segment(const Error& error) {
  if (error.code == ErrorCode::corrupt)
    on_event_(true, fmt::format("{}; mail goes on in a new segment. Run `holdfast journal verify`, and restore the segment from your backup",
                                error.message));
  transaction_.reset();
  for (Touched& touched : touched_) {
    touched.ticket->extents_ = std::move(touched.extents);
    touched.ticket->home_ = std::move(touched.home);
  }
  touched_.clear();
  group_ids_.clear();
  group_bytes_ = 0;
  std::vector<Job> jobs = std::exchange(group_, {});
  Status rolled = roll();
  for (auto job = jobs.begin(); job != jobs.end(); ++job) {
    Status stored = rolled ? store(*job) : rolled;
    if (stored) continue;
    for (; job != jobs.end(); ++job) {
      remember(*job);
      group_.push_back(std::move(*job));
    }
    return fail_group(stored.error());
  }
}

/// An entry is always whole in one segment and under its key: moves what a draft has in an older one into this.
Status Writer::bring_home(Job& job) {
  if (job.key->segment != segment_->header().number) {
    const Error damaged{ErrorCode::corrupt, "what waits in memory to be written is damaged; check the machine's memory"};
    if (!job.frame.empty()) {
      auto plain = open_frame(job.key->key, job.content_id, job.frame_index, job.frame_is_last, job.frame);
      if (!plain) return damaged;
      job.frame = seal_frame(segment_->key(), job.content_id, job.frame_index, job.frame_is_last, *plain);
    }
    if (!job.encoded.empty()) {
      auto moved = move_record(job.key->key, segment_->key(), job.record);
      if (!moved) return damaged;
      job.record = std::move(*moved);
    }
    job.key = current_key();
  }
  if (!job.ticket) return {};
  Ticket& ticket = *job.ticket;
  if (!ticket.home_) ticket.home_ = segment_;
  if (ticket.home_ == segment_) return {};
  std::shared_ptr<Segment> old_home = std::exchange(ticket.home_, segment_);
  std::vector<Extent> old_extents = std::exchange(ticket.extents_, {});
  MessageRecord so_far;  // all frames that were stored before are full, and none is the last
  so_far.content_id = job.content_id;
  so_far.size = (static_cast<std::uint64_t>(job.frame_index) + 1) * frame_plain_size;
  std::uint32_t index = 0;
  if (job.frame_index == 0) return {};
  Status stored;
  Status read = old_home->content(so_far, {old_extents, {}, 0, 0}, [&](std::string_view plain) {
    stored = store_frame(ticket, seal_frame(segment_->key(), job.content_id, index, false, plain));
    return ++index < job.frame_index && stored;
  });
  return stored ? read : stored;
}

void Writer::roll_if_due() {
  if (transaction_) return;
  bool is_empty = tail_.next_cell == segment_->header().first_cell;
  bool is_large = segment_->environment().used_bytes() >= options_.segment_size;
  bool is_old = options_.segment_age_us > 0 && now_us() - segment_->header().created_us >= options_.segment_age_us;
  bool is_asked = must_roll_.exchange(false);
  if (is_empty || !(is_large || is_old || is_asked)) return;
  const auto now = std::chrono::steady_clock::now();
  if (!is_asked && now < next_roll_) return;
  Status rolled = roll();
  std::string problem = rolled ? "" : rolled.error().message;
  if (!rolled) next_roll_ = now + retry_delay;
  {
    std::lock_guard lock(mutex_);
    std::swap(state_.roll_problem, problem);
  }
  if (!rolled && rolled.error().message != problem)
    on_event_(true, fmt::format("cannot begin a new segment, going on with the old one: {}", rolled.error().message));
}

Status Writer::roll() {
  SegmentHeader header;
  header.number = segment_->header().number + 1;
  header.first_cell = tail_.next_cell;
  header.created_us = now_us();
  header.previous_link = tail_.link;
  auto created = Segment::create(options_.journal, std::move(header), keys_, map_size(options_.segment_size));
  if (!created) return created.error();
  room_.leave(segment_->environment().used_bytes());
  segment_ = std::move(*created);
  room_.enter(segment_->path(), segment_->environment().used_bytes());
  segments_.adopt(segment_);
  {
    std::lock_guard lock(mutex_);
    key_ = key_of(*segment_);
    state_.segment = segment_->header().number;
    state_.is_segment_empty = true;
  }
  options_.on_rolled();
  on_event_(false, fmt::format("began journal segment {}", segment_->header().number));
  return {};
}

}  // namespace holdfast::journal
