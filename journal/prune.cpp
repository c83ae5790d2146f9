// Retention: whole segments that are old enough go, the oldest first, and the catalog forgets them. One that is damaged goes by
// what is known without it. The log has no gaps: behind one that must stay, segments lose their mail, and go when it goes.
#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <map>
#include <set>
#include <span>

#include "journal/head.h"
#include "journal/journal.h"
#include "journal/rewrite.h"
#include "journal/write_record.h"

namespace holdfast::journal {

/// A segment that is written no more, as far as it can be read.
struct Journal::Old {
  std::uint32_t number;
  std::shared_ptr<Segment> segment;  ///< null: it cannot be read at all
  RecordId first = 0, end = 0;       ///< its records' ids
  std::int64_t ended_us = 0;         ///< when the one behind it was begun
  bool is_whole = false;             ///< all of it was read
  std::set<RecordId> entries;
  std::uint64_t counted = 0;  ///< entries that the catalog knows
  bool has_young = false;     ///< there are entries that are not old: the clock was set back, or wrong, when it ended
  RecordId last_hold = 0;     ///< the last legal hold's record when this was looked at
};

/// What is to go, and what of it is done.
struct Journal::Pruning {
  std::int64_t before_us;
  const std::string &by, &reason;
  std::vector<std::pair<RecordId, RecordId>> staying;  ///< of segments that stay with their mail: their records' ids, the end is not theirs
  bool is_behind = false;                              ///< one before the next stays
  Pruned done;
};

/// The first of these segments; nothing when it is the newest, or when what is behind it cannot be read.
Result<std::optional<Journal::Old>> Journal::find_old(std::span<const std::uint32_t> numbers) const {
  auto segment = segments_->get(numbers.front());
  if (!segment && !is_damage(segment.error())) return segment.error();
  Old old;
  old.number = numbers.front();
  if (segment) {
    old.segment = std::move(*segment);
    old.first = old.segment->header().first_cell;
  }
  for (std::size_t i = 1; i < numbers.size(); ++i) {
    auto next = segments_->get(numbers[i]);
    if (!next && is_damage(next.error())) continue;                 // it does not say when it was begun
    if (!next && next.error().code == ErrorCode::not_found) break;  // it is being begun
    if (!next) return next.error();
    old.end = (*next)->header().first_cell;
    old.ended_us = (*next)->header().created_us;
    return std::optional(std::move(old));
  }
  return std::optional<Old>();
}

/// Sets what it holds; before_us tells what is old.
Status Journal::list_entries(Old& old, std::int64_t before_us) const {
  const std::int64_t now = now_us();
  Status walked;
  if (old.segment)
    walked = old.segment->each_record(0, [&](Segment::StoredRecord& one) {
      if (one.kind != RecordKind::message) return true;
      old.entries.insert(one.id);
      old.counted += one.damage.empty();  // the catalog knows nothing of the others
      auto message = one.damage.empty() && !one.is_erased ? decode_message(one.encoded) : std::nullopt;
      old.has_young |= message && message->time_us >= before_us && message->time_us <= now;
      return !old.has_young;
    });
  if (!walked && !is_damage(walked.error())) return walked;
  old.is_whole = old.segment && walked;
  if (old.is_whole) return {};
  auto known = catalog_->entries_in(old.number);
  if (!known) return known.error();
  old.counted = known->size();
  old.entries.merge(*known);
  return {};
}

/// Which legal hold stands on one of its entries; empty when none does. Of one that was not read nobody can say that none does.
Result<std::string> Journal::why_on_hold(const Old& old) {
  constexpr std::string_view remedy = "see: holdfast journal legal-hold list";
  auto holds = legal_holds();
  if (!holds) return holds.error();
  if (holds->empty()) return std::string();
  if (!old.is_whole) return fmt::format("it is damaged, so nobody can say whether a legal hold is on it; {}", remedy);
  for (RecordId entry : old.entries) {
    auto name = hold_on(entry, *holds);
    if (!name) return name.error();
    if (!name->empty()) return fmt::format("entry {} is under the legal hold \"{}\"; {}", entry, *name, remedy);
  }
  return std::string();
}

/// Empty when its mail may go: what it holds has been listed then.
Result<std::string> Journal::why_mail_stays(Old& old, std::int64_t before_us) {
  auto held = catalog_->held_after(old.first == 0 ? 0 : old.first - 1, 1);
  if (!held) return held.error();
  bool has_held = !held->empty() && held->front().entry < old.end;
  if (has_held) return fmt::format("entry {0} is held for delivery; see: holdfast queue show {0}", held->front().entry);
  if (Status listed = list_entries(old, before_us); !listed) return listed.error();
  if (old.has_young) return std::string("there are entries in it that are not that old: the clock was wrong when it ended");
  return why_on_hold(old);
}

/// The records that set legal holds must stay as long as they hold.
Result<bool> Journal::has_legal_hold(std::uint32_t segment) const {
  auto holds = legal_holds();
  if (!holds) return holds.error();
  auto places = catalog_->legal_holds();
  if (!places) return places.error();
  return !holds->empty() && std::any_of(places->begin(), places->end(), [&](const Catalog::Place& place) { return place.segment == segment; });
}

/// The last that was set or lifted, as far as the catalog knows; 0: none.
Result<RecordId> Journal::last_legal_hold() const {
  auto places = catalog_->legal_holds();
  if (!places) return places.error();
  return places->empty() ? RecordId(0) : places->back().id;
}

/// What was decided about a route holds until something else is decided, however long ago it was: its record
/// is written again.
Status Journal::restate_routes_of(const Old& old) {
  if (!old.segment) return {};
  auto places = catalog_->states();
  if (!places) return places.error();
  for (const Catalog::Place& place : *places) {
    if (place.segment != old.number) continue;
    auto record = old.segment->record(place.id);
    if (!record && record.error().code != ErrorCode::corrupt) return record.error();
    if (!record || !*record || !(*record)->damage.empty()) continue;
    auto written = write_record(*writer_, RecordKind::state, std::move((*record)->encoded));
    if (!written) return written.error();
  }
  return {};
}

/// The catalog forgets what a segment had: part by part, so that what comes is indexed meanwhile.
Status Journal::forget_mail(const Catalog::Removal& removal) {
  for (bool goes_on = true; goes_on;) {
    Status forgotten = cataloger_->run([&](Catalog& catalog) -> Status {
      auto more = catalog.forget_part(removal);
      if (!more) return more.error();
      goes_on = *more;
      return {};
    });
    if (!forgotten) return forgotten;
  }
  return {};
}

/// The catalog forgets a segment that went.
Status Journal::finish(const Catalog::Removal& removal) {
  if (Status forgotten = forget_mail(removal); !forgotten) return forgotten;
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

/// In parts, so that nobody who reads waits for long.
Status Journal::forget_elsewhere(const std::set<RecordId>& entries) {
  constexpr std::size_t part = 10'000;
  std::vector<RecordId> ids(entries.begin(), entries.end());
  for (std::size_t at = 0; forget_elsewhere_ && at < ids.size(); at += part) {
    auto begin = ids.begin() + static_cast<std::ptrdiff_t>(at);
    auto behind = begin + static_cast<std::ptrdiff_t>(std::min(part, ids.size() - at));
    if (Status forgotten = forget_elsewhere_({begin, behind}); !forgotten) return forgotten;
  }
  return {};
}

/// Puts it on record. Error: busy, when there is another legal hold since that one: what was decided is to be decided anew.
Status Journal::order(const ErasureRecord& record, RecordId last_hold) {
  std::lock_guard one_after_another(deciding_);
  if (Status settled = settle_down(false); !settled) return settled;
  auto last = last_legal_hold();
  if (!last) return last.error();
  if (*last != last_hold) return Error{ErrorCode::busy, "a legal hold was set at this moment; try again"};
  auto written = write_record(*writer_, RecordKind::erasure, encode(record));
  return written ? Status() : written.error();
}

Status Journal::take_away(const Old& old, const Pruning& pruning) {
  // Its head is what will be left of it.
  if (Status sealed = sealer_->seal_below(old.number + 1); !sealed && !is_damage(sealed.error())) return sealed;
  if (Status ordered = order(prune_record(old.number, pruning.by, pruning.reason), old.last_hold); !ordered) return ordered;
  if (Status restated = restate_routes_of(old); !restated) return restated;
  if (Status forgotten = forget_elsewhere(old.entries); !forgotten) return forgotten;
  const Catalog::Removal removal{old.number, old.first, old.end, old.counted};
  Status begun = cataloger_->run([&](Catalog& catalog) { return catalog.begin_removal(removal); });
  if (!begun) return begun;
  if (Status removed = remove_segment(path_, old.number); !removed) return removed;
  segments_->remove(old.number);
  return finish(removal);
}

/// Its mail, and what became of mail that went; not what became of mail that stays. Error: corrupt.
Result<std::set<RecordId>> Journal::mail_in(const Old& old, const Pruning& pruning) const {
  std::set<RecordId> mail;
  Status problem;
  auto stays = [&](RecordId entry) {
    return std::any_of(pruning.staying.begin(), pruning.staying.end(), [&](const auto& some) { return entry >= some.first && entry < some.second; });
  };
  Status walked = old.segment->each_record(0, [&](Segment::StoredRecord& one) {
    if (!one.damage.empty()) problem = Error{ErrorCode::corrupt, fmt::format("record {} is damaged: {}", one.id, one.damage)};
    if (one.is_erased || !problem) return static_cast<bool>(problem);
    std::optional<OutcomeRecord> outcome = one.kind == RecordKind::outcome ? decode_outcome(one.encoded) : std::nullopt;
    if (one.kind == RecordKind::message || (outcome && !stays(outcome->entry))) mail.insert(one.id);
    return true;
  });
  if (!problem) return problem.error();
  if (!walked) return walked.error();
  return mail;
}

/// Its mail goes, the segment stays; the mail goes last, so that the next prune() makes a crash good. Returns why it stays after all.
Result<std::string> Journal::empty_out(const Old& old, Pruning& pruning) {
  constexpr std::string_view remedy = "run: holdfast journal verify";
  if (!old.is_whole) return fmt::format("it is damaged, and one before it stays; {}", remedy);
  auto mail = mail_in(old, pruning);
  if (!mail && is_damage(mail.error())) return fmt::format("{}, and one before it stays; {}", mail.error().message, remedy);
  if (!mail) return mail.error();
  if (!mail->empty()) {
    // Its links are lost with the rewriting: what was signed must be left of them.
    if (Status sealed = sealer_->seal_below(old.number + 1); !sealed && !is_damage(sealed.error())) return sealed.error();
    if (!read_head(path_, old.number)) return fmt::format("it cannot be sealed, and one before it stays; {}", remedy);
    if (Status ordered = order(emptying_record(old.number, pruning.by, pruning.reason), old.last_hold); !ordered) return ordered.error();
    if (Status forgotten = forget_elsewhere(old.entries); !forgotten) return forgotten.error();
    if (Status forgotten = forget_mail({old.number, old.first, old.end, old.counted}); !forgotten) return forgotten.error();
    RewriteOptions options{*mail, true, [this] { return !is_interrupted_; }};
    if (Status rewritten = rewrite_segment(path_, *old.segment, *keys_, *signing_key_, options); !rewritten) return rewritten.error();
    segments_->forget(old.number);
    pruning.done.emptied.push_back(old.number);
  }
  emptied_.insert(old.number);
  return std::string();
}

/// One after the other, the oldest first. Error: busy also when it is to be done again, since a legal hold came in between.
Status Journal::prune_one(Old& old, Pruning& pruning) {
  auto last_hold = last_legal_hold();
  auto has_hold = has_legal_hold(old.number);
  if (!last_hold || !has_hold) return last_hold ? has_hold.error() : last_hold.error();
  old.last_hold = *last_hold;
  pruning.is_behind |= *has_hold;
  if (pruning.is_behind && emptied_.contains(old.number)) return {};
  auto why = why_mail_stays(old, pruning.before_us);
  if (!why) return why.error();
  if (why->empty() && !pruning.is_behind) {
    Status taken = take_away(old, pruning);
    if (taken) pruning.done.segments.push_back(old.number);
    return taken;
  }
  if (why->empty()) why = empty_out(old, pruning);
  if (!why) return why.error();
  pruning.is_behind = true;
  if (why->empty()) return {};
  if (pruning.staying.empty()) pruning.done.stays = fmt::format("segment {} stays: {}", old.number, *why);
  pruning.staying.emplace_back(old.first, old.end);
  return {};
}

Result<Journal::Pruned> Journal::prune(std::int64_t before_us, const std::string& by, const std::string& reason) {
  std::lock_guard one_at_a_time(maintenance_);
  auto numbers = list_segments(path_);
  if (!numbers) return numbers.error();
  if (Status finished = finish_removals(); !finished) return finished.error();
  if (Status settled = settle_down(false); !settled) return settled.error();
  Pruning pruning{before_us, by, reason, {}, false, {}};
  for (std::size_t i = 0; i + 1 < numbers->size() && !is_interrupted_;) {
    auto old = find_old(std::span(*numbers).subspan(i));
    if (!old) return old.error();
    if (!*old || (*old)->ended_us >= before_us) break;
    Status dealt_with = prune_one(**old, pruning);
    auto last_hold = last_legal_hold();
    bool has_hold_come = last_hold && *last_hold != (*old)->last_hold;
    if (!dealt_with && has_hold_come) continue;
    if (!dealt_with && is_interrupted_) break;
    if (!dealt_with) return dealt_with.error();
    ++i;
  }
  if (pruning.staying.size() > 1) pruning.done.stays += fmt::format("; in all, {} segments stay", pruning.staying.size());
  return pruning.done;
}

}  // namespace holdfast::journal
