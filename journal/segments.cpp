#include "journal/segments.h"

#include <fmt/format.h>

#include <algorithm>

namespace holdfast::journal {

void Segments::adopt(std::shared_ptr<Segment> segment) {
  std::lock_guard lock(mutex_);
  newest_ = segment->header().number;
  open_[newest_] = std::move(segment);
}

Result<std::shared_ptr<Segment>> Segments::get(std::uint32_t number) {
  std::lock_guard lock(mutex_);
  if (auto found = open_.find(number); found != open_.end()) return found->second;
  if (number > newest_) return Error{ErrorCode::not_found, fmt::format("{}: is being begun", segment_path(journal_, number))};
  auto opened = Segment::open(journal_, number, keys_, Environment::Mode::read);
  if (!opened) return opened.error();
  std::shared_ptr<Segment> segment(std::move(*opened));
  open_[number] = segment;
  return segment;
}

void Segments::forget(std::uint32_t number) {
  std::lock_guard lock(mutex_);
  open_.erase(number);
}

std::uint32_t Segments::newest() {
  std::lock_guard lock(mutex_);
  return newest_;
}

Result<std::shared_ptr<Segment>> Segments::holding(RecordId id) {
  {
    // Mostly it is in a segment that is open, as is the one after it.
    std::lock_guard lock(mutex_);
    for (auto newer = open_.rend(), one = open_.rbegin(); one != open_.rend(); newer = one++) {
      if (one->second->header().first_cell > id) continue;
      bool is_newest = newer == open_.rend();
      if (is_newest || newer->first == one->first + 1) return one->second;
      break;
    }
  }
  auto numbers = list_segments(journal_);
  if (!numbers) return numbers.error();
  for (auto number = numbers->rbegin(); number != numbers->rend(); ++number) {
    auto segment = get(*number);
    if (!segment) {
      bool is_passed_over = segment.error().code == ErrorCode::corrupt || segment.error().code == ErrorCode::not_found;
      if (is_passed_over) continue;
      return segment.error();
    }
    if ((*segment)->header().first_cell <= id) return segment;
  }
  return Error{ErrorCode::not_found, fmt::format("there is no record {} in this journal", id)};
}

}  // namespace holdfast::journal
