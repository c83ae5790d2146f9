#include "journal/segments.h"

#include <fmt/format.h>

#include <algorithm>

namespace holdfast::journal {

Segments::Segments(std::string journal, const KeyRing& keys, const std::vector<std::uint32_t>& numbers) : journal_(std::move(journal)), keys_(keys) {
  for (std::uint32_t number : numbers) slots_.push_back({number, {}, {}});
}

/// Where the segment's slot is, or belongs.
std::vector<Segments::Slot>::iterator Segments::at(std::uint32_t number) {
  return std::lower_bound(slots_.begin(), slots_.end(), number, [](const Slot& one, std::uint32_t wanted) { return one.number < wanted; });
}

/// Null when the segment is not one of the journal's, as far as is known.
Segments::Slot* Segments::find(std::uint32_t number) {
  auto found = at(number);
  return found != slots_.end() && found->number == number ? &*found : nullptr;
}

void Segments::note(const std::shared_ptr<Segment>& segment) {
  const SegmentHeader& header = segment->header();
  Slot noted{header.number, segment, SegmentPlace{header.number, header.first_cell, header.created_us}};
  if (Slot* slot = find(header.number))
    *slot = noted;
  else
    slots_.insert(at(header.number), noted);
}

void Segments::adopt(std::shared_ptr<Segment> segment) {
  std::shared_ptr<Segment> before;
  std::lock_guard lock(mutex_);
  note(segment);
  before = std::exchange(adopted_, std::move(segment));
}

Result<std::shared_ptr<Segment>> Segments::get(std::uint32_t number) {
  Closed closed;
  std::lock_guard lock(mutex_);
  return open(number, closed);
}

Result<std::shared_ptr<Segment>> Segments::open(std::uint32_t number, Closed& closed) {
  Slot* slot = find(number);
  if (std::shared_ptr<Segment> segment = slot ? slot->segment.lock() : nullptr) {
    use(segment, closed);
    return segment;
  }
  if (adopted_ && number > adopted_->header().number)
    return Error{ErrorCode::not_found, fmt::format("{}: is being begun", segment_path(journal_, number))};
  auto opened = Segment::open(journal_, number, keys_, Environment::Mode::read);
  if (!opened) return opened.error();
  std::shared_ptr<Segment> segment(std::move(*opened));
  note(segment);
  use(segment, closed);
  return segment;
}

/// Puts it before the others, of which the last may have to go.
void Segments::use(const std::shared_ptr<Segment>& segment, Closed& closed) {
  if (segment == adopted_) return;
  auto found = std::find(recent_.begin(), recent_.end(), segment);
  if (found != recent_.end()) return recent_.splice(recent_.begin(), recent_, found);
  recent_.push_front(segment);
  if (recent_.size() <= most_idle) return;
  closed.push_back(std::move(recent_.back()));
  recent_.pop_back();
}

void Segments::drop(std::uint32_t number, Closed& closed) {
  Slot* slot = find(number);
  if (!slot) return;
  std::shared_ptr<Segment> segment = slot->segment.lock();
  slot->segment.reset();
  recent_.remove(segment);
  closed.push_back(std::move(segment));
}

void Segments::forget(std::uint32_t number) {
  Closed closed;
  std::lock_guard lock(mutex_);
  drop(number, closed);
}

void Segments::remove(std::uint32_t number) {
  Closed closed;
  std::lock_guard lock(mutex_);
  drop(number, closed);
  std::erase_if(slots_, [number](const Slot& one) { return one.number == number; });
}

std::uint32_t Segments::newest() {
  std::lock_guard lock(mutex_);
  return adopted_ ? adopted_->header().number : 0;
}

std::vector<std::uint32_t> Segments::numbers(std::uint32_t from) {
  std::lock_guard lock(mutex_);
  std::vector<std::uint32_t> found;
  for (const Slot& one : slots_)
    if (one.number >= from) found.push_back(one.number);
  return found;
}

Result<SegmentPlace> Segments::place(std::uint32_t number) {
  Closed closed;
  std::lock_guard lock(mutex_);
  return place(number, closed);
}

Result<SegmentPlace> Segments::place(std::uint32_t number, Closed& closed) {
  if (const Slot* slot = find(number); slot && slot->place) return *slot->place;
  auto segment = open(number, closed);
  if (!segment) return segment.error();
  return *find(number)->place;
}

Result<std::shared_ptr<Segment>> Segments::holding(RecordId id) {
  Closed closed;
  std::lock_guard lock(mutex_);
  if (adopted_ && adopted_->header().first_cell <= id) return adopted_;
  // The last that begins at the record or before it.
  std::uint32_t holder = 0;
  for (std::size_t from = 0, to = slots_.size(); from < to;) {
    const std::size_t middle = from + (to - from) / 2;
    std::size_t at = middle;
    auto place = this->place(slots_[at].number, closed);
    auto is_passed_over = [&] { return !place && (is_damage(place.error()) || place.error().code == ErrorCode::not_found); };
    while (is_passed_over() && at > from) place = this->place(slots_[--at].number, closed);
    if (!place && !is_passed_over()) return place.error();
    if (place && place->first_cell > id) {
      to = at;
      continue;
    }
    if (place) holder = place->number;
    from = middle + 1;
  }
  if (holder == 0) return Error{ErrorCode::not_found, fmt::format("there is no record {} in this journal", id)};
  return open(holder, closed);
}

std::optional<Error> Segments::damage_behind(std::uint32_t number) {
  for (std::uint32_t next : numbers(number + 1)) {
    auto place = this->place(next);
    if (place) break;
    if (is_damage(place.error())) return place.error();
  }
  return std::nullopt;
}

}  // namespace holdfast::journal
