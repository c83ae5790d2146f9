// Retention: whole segments that are old enough go, the oldest first, and the catalog forgets them. One that is damaged goes by
// what is known without it.
#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <map>
#include <set>

#include "journal/journal.h"
#include "journal/rewrite.h"
#include "journal/write_record.h"

namespace holdfast::journal {

/// The oldest segment that is there, as far as it can be read.
struct Journal::Oldest {
  std::uint32_t number;
  std::shared_ptr<Segment> segment;  ///< null: it cannot be read at all
  RecordId first = 0, end = 0;       ///< its records' ids
  std::int64_t ended_us = 0;         ///< when the one behind it was begun
  bool is_whole = false;             ///< all of it was read
  std::set<RecordId> entries;
  std::uint64_t counted = 0;  ///< entries that the catalog knows
  bool has_young = false;     ///< there are entries that are not old: the clock was set back, or wrong, when it ended
};

namespace {
bool is_damage(const Error& error) { return error.code == ErrorCode::corrupt || error.code == ErrorCode::wrong_key; }
}  // namespace

/// The first of these segments; nothing when it is the newest, or when what is behind it cannot be read.
Result<std::optional<Journal::Oldest>> Journal::find_oldest(const std::vector<std::uint32_t>& numbers) const {
  auto segment = segments_->get(numbers.front());
  if (!segment && !is_damage(segment.error())) return segment.error();
  Oldest oldest;
  oldest.number = numbers.front();
  if (segment) {
    oldest.segment = std::move(*segment);
    oldest.first = oldest.segment->header().first_cell;
  }
  for (std::size_t i = 1; i < numbers.size(); ++i) {
    auto next = segments_->get(numbers[i]);
    if (!next && is_damage(next.error())) continue;                 // it does not say when it was begun
    if (!next && next.error().code == ErrorCode::not_found) break;  // it is being begun
    if (!next) return next.error();
    oldest.end = (*next)->header().first_cell;
    oldest.ended_us = (*next)->header().created_us;
    return std::optional(std::move(oldest));
  }
  return std::optional<Oldest>();
}

/// Sets what it holds; before_us tells what is old.
Status Journal::list_entries(Oldest& oldest, std::int64_t before_us) const {
  const std::int64_t now = now_us();
  Status walked;
  if (oldest.segment)
    walked = oldest.segment->each_record(0, [&](Segment::StoredRecord& one) {
      if (one.kind != RecordKind::message) return true;
      oldest.entries.insert(one.id);
      oldest.counted += one.damage.empty();  // the catalog knows nothing of the others
      auto message = one.damage.empty() && !one.is_erased ? decode_message(one.encoded) : std::nullopt;
      oldest.has_young |= message && message->time_us >= before_us && message->time_us <= now;
      return !oldest.has_young;
    });
  if (!walked && !is_damage(walked.error())) return walked;
  oldest.is_whole = oldest.segment && walked;
  if (oldest.is_whole) return {};
  auto known = catalog_->entries_in(oldest.number);
  if (!known) return known.error();
  oldest.counted = known->size();
  oldest.entries.merge(*known);
  return {};
}

/// Which legal hold stands on one of its entries, or in it; empty when none does. Of one that was not read nobody can say that none does.
Result<std::string> Journal::why_on_hold(const Oldest& oldest) {
  constexpr std::string_view remedy = "see: holdfast journal legal-hold list";
  auto holds = legal_holds();
  if (!holds) return holds.error();
  if (holds->empty()) return std::string();
  if (!oldest.is_whole) return fmt::format("it is damaged, so nobody can say whether a legal hold is on it; {}", remedy);
  for (RecordId entry : oldest.entries) {
    auto name = hold_on(entry, *holds);
    if (!name) return name.error();
    if (!name->empty()) return fmt::format("entry {} is under the legal hold \"{}\"; {}", entry, *name, remedy);
  }
  // The records that set holds must stay as long as they hold.
  auto places = catalog_->legal_holds();
  if (!places) return places.error();
  bool has_record = std::any_of(places->begin(), places->end(), [&](const Catalog::Place& place) { return place.segment == oldest.number; });
  return has_record ? fmt::format("the record of a legal hold is in it; {}", remedy) : std::string();
}

/// Empty when it may go: what it holds has been listed then.
Result<std::string> Journal::why_it_stays(Oldest& oldest, std::int64_t before_us) {
  auto held = catalog_->held_after(oldest.first == 0 ? 0 : oldest.first - 1, 1);
  if (!held) return held.error();
  bool has_held = !held->empty() && held->front().entry < oldest.end;
  if (has_held) return fmt::format("entry {0} is held for delivery; see: holdfast queue show {0}", held->front().entry);
  if (Status listed = list_entries(oldest, before_us); !listed) return listed.error();
  if (oldest.has_young) return std::string("there are entries in it that are not that old: the clock was wrong when it ended");
  return why_on_hold(oldest);
}

/// What was decided about a route holds until something else is decided, however long ago it was: its record
/// is written again.
Status Journal::restate_routes_of(const Oldest& oldest) {
  if (!oldest.segment) return {};
  auto places = catalog_->states();
  if (!places) return places.error();
  for (const Catalog::Place& place : *places) {
    if (place.segment != oldest.number) continue;
    auto record = oldest.segment->record(place.id);
    if (!record && record.error().code != ErrorCode::corrupt) return record.error();
    if (!record || !*record || !(*record)->damage.empty()) continue;
    auto written = write_record(*writer_, RecordKind::state, std::move((*record)->encoded));
    if (!written) return written.error();
  }
  return {};
}

/// The catalog forgets a segment that went: part by part, so that what comes is indexed meanwhile.
Status Journal::finish(const Catalog::Removal& removal) {
  for (bool goes_on = true; goes_on;) {
    Status forgotten = cataloger_->run([&](Catalog& catalog) -> Status {
      auto more = catalog.forget_part(removal);
      if (!more) return more.error();
      goes_on = *more;
      return {};
    });
    if (!forgotten) return forgotten;
  }
  Status ended = cataloger_->run([&](Catalog& catalog) { return catalog.end_removal(removal); });
  if (ended) entries_pruned_ += removal.entries;
  return ended;
}

/// Those that a crash cut short. One whose segment is still there will be begun anew.
Status Journal::finish_removals() {
  auto removals = catalog_->removals();
  if (!removals) return removals.error();
  for (const Catalog::Removal& removal : *removals) {
    std::error_code failure;
    bool has_gone = !std::filesystem::exists(segment_path(path_, removal.segment), failure) && !failure;
    if (has_gone)
      if (Status finished = finish(removal); !finished) return finished;
  }
  return {};
}

Status Journal::take_away(const Oldest& oldest, const std::string& by, const std::string& reason) {
  // Its head is what will be left of it.
  if (Status sealed = sealer_->seal_below(oldest.number + 1); !sealed && !is_damage(sealed.error())) return sealed;
  if (Status restated = restate_routes_of(oldest); !restated) return restated;
  auto written = write_record(*writer_, RecordKind::erasure, encode(prune_record(oldest.number, by, reason)));
  if (!written) return written.error();
  // In parts, so that nobody who reads waits for long.
  constexpr std::size_t part = 10'000;
  std::vector<RecordId> ids(oldest.entries.begin(), oldest.entries.end());
  for (std::size_t at = 0; forget_elsewhere_ && at < ids.size(); at += part) {
    auto begin = ids.begin() + static_cast<std::ptrdiff_t>(at);
    auto behind = begin + static_cast<std::ptrdiff_t>(std::min(part, ids.size() - at));
    if (Status forgotten = forget_elsewhere_({begin, behind}); !forgotten) return forgotten;
  }
  const Catalog::Removal removal{oldest.number, oldest.first, oldest.end, oldest.counted};
  Status begun = cataloger_->run([&](Catalog& catalog) { return catalog.begin_removal(removal); });
  if (!begun) return begun;
  if (Status removed = remove_segment(path_, oldest.number); !removed) return removed;
  segments_->remove(oldest.number);
  return finish(removal);
}

Result<Journal::Pruned> Journal::prune(std::int64_t before_us, const std::string& by, const std::string& reason) {
  std::lock_guard one_at_a_time(maintenance_);
  Pruned pruned;
  auto numbers = list_segments(path_);
  if (!numbers) return numbers.error();
  if (Status finished = finish_removals(); !finished) return finished.error();
  if (Status settled = settle_down(false); !settled) return settled.error();
  for (; numbers->size() > 1 && !is_interrupted_; numbers->erase(numbers->begin())) {
    auto oldest = find_oldest(*numbers);
    if (!oldest) return oldest.error();
    if (!*oldest || (*oldest)->ended_us >= before_us) break;
    auto why = why_it_stays(**oldest, before_us);
    if (!why) return why.error();
    if (!why->empty()) {
      pruned.stays = fmt::format("segment {} and all after it stay: {}", (*oldest)->number, *why);
      break;
    }
    if (Status taken = take_away(**oldest, by, reason); !taken) return taken.error();
    pruned.segments.push_back((*oldest)->number);
  }
  return pruned;
}

}  // namespace holdfast::journal
