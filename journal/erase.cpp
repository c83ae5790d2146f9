// Journal's erasure (law 7, GDPR Art. 17): the record of it first, then the segments, then the catalog.
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <map>
#include <set>
#include <thread>

#include "journal/journal.h"
#include "journal/rewrite.h"
#include "journal/write_record.h"

namespace holdfast::journal {
namespace {

constexpr auto settling_glance = std::chrono::milliseconds(5);
constexpr auto settling_patience = std::chrono::seconds(30);

/// Looks again and again until it is so.
template <class Condition>
bool wait_until(Condition condition) {
  auto end = std::chrono::steady_clock::now() + settling_patience;
  while (!condition()) {
    if (std::chrono::steady_clock::now() > end) return false;
    std::this_thread::sleep_for(settling_glance);
  }
  return true;
}

/// What is damaged stops nothing else; the first problem of that kind is kept. False for an error that ends the work.
bool may_go_on(const Status& done, Status& problem) {
  bool is_damaged = !done && is_damage(done.error());
  if (is_damaged && problem) problem = done;
  return done || is_damaged;
}

}  // namespace

/// The catalog knows all that is written now; and, if so asked, it is in segments that are written no more.
Status Journal::settle_down(bool ends_segment) {
  RecordId last = writer_->state().last_id;
  std::uint32_t ended = ends_segment ? seal() : 0;
  bool is_ended = ended == 0 || wait_until([&] { return segments_->newest() > ended; });
  if (!is_ended) return Error{ErrorCode::unavailable, "the newest segment could not be ended; see the daemon's log"};
  bool is_indexed = wait_until([&] {
    auto position = catalog_->position();
    bool is_there = position && *position >= last;
    if (!is_there) cataloger_->hurry();
    return is_there;
  });
  if (!is_indexed) return Error{ErrorCode::unavailable, "the catalog lags behind the log; see the daemon's log"};
  return {};
}

Result<std::map<std::string, LegalHoldRecord>> Journal::legal_holds() const {
  std::map<std::string, LegalHoldRecord> holds;
  auto places = catalog_->legal_holds();
  if (!places) return places.error();
  for (const Catalog::Place& place : *places) {
    auto segment = segments_->get(place.segment);
    // Only one that counted no more can have been pruned.
    if (!segment && segment.error().code == ErrorCode::not_found) continue;
    if (!segment) return segment.error();
    auto stored = (*segment)->record(place.id);
    if (!stored) return stored.error();
    std::optional<LegalHoldRecord> hold;
    if (*stored && (*stored)->damage.empty()) hold = decode_legal_hold((*stored)->encoded);
    if (!hold)
      return Error{ErrorCode::corrupt,
                   fmt::format("legal hold record {} is damaged, so nothing may be erased; run: holdfast journal verify", place.id)};
    if (hold->is_set)
      holds[hold->name] = std::move(*hold);
    else
      holds.erase(hold->name);
  }
  return holds;
}

Result<RecordId> Journal::record_legal_hold(const LegalHoldRecord& hold) {
  std::lock_guard one_after_another(deciding_);
  if (Status settled = settle_down(false); !settled) return settled.error();
  // Of those in what is damaged nobody knows; who must keep something must be able to say so all the same.
  auto holds = legal_holds();
  if (holds && holds->contains(hold.name) == hold.is_set)
    return Error{ErrorCode::busy, fmt::format("the legal hold \"{}\" was {} by somebody else at this moment; see: holdfast journal legal-hold list",
                                              hold.name, hold.is_set ? "set" : "lifted")};
  return write_record(*writer_, RecordKind::legal_hold, encode(hold));
}

/// The name of a legal hold on the entry; empty when there is none.
Result<std::string> Journal::hold_on(RecordId id, const std::map<std::string, LegalHoldRecord>& holds) {
  if (holds.empty()) return std::string();
  auto entry = this->entry(id);
  if (!entry && entry.error().code == ErrorCode::not_found) return std::string();  // erased already
  if (!entry) return entry.error();
  for (const auto& [name, hold] : holds) {
    Filter filter;
    if (!hold.sender.empty()) filter.sender = hold.sender;
    if (!hold.recipient.empty()) filter.recipient = hold.recipient;
    if (!hold.message_id.empty()) filter.message_id = hold.message_id;
    if (hold.since_us != 0) filter.since_us = hold.since_us;
    if (hold.until_us != 0) filter.until_us = hold.until_us;
    bool is_named = hold.entries.empty() || std::find(hold.entries.begin(), hold.entries.end(), id) != hold.entries.end();
    if (is_named && passes(*entry, filter)) return name;
  }
  return std::string();
}

/// Error: busy, naming the legal hold that is on one of the entries.
Status Journal::check_legal_holds(const std::vector<RecordId>& entries) {
  auto holds = legal_holds();
  if (!holds) return holds.error();
  for (RecordId id : entries) {
    auto name = hold_on(id, *holds);
    if (!name) return name.error();
    if (!name->empty())
      return Error{ErrorCode::busy, fmt::format("entry {} is under the legal hold \"{}\": nothing was "
                                                "erased. See: holdfast journal legal-hold list",
                                                id, *name)};
  }
  return {};
}

/// The record that says that the entries, with all that became of them, are to be erased.
Result<RecordId> Journal::order_erasure(const std::vector<RecordId>& entries, const std::string& by, const std::string& reason) {
  ErasureRecord record;
  record.time_us = now_us();
  record.by = by;
  record.reason = reason;
  for (RecordId id : entries) {
    record.records.push_back(id);
    auto outcomes = catalog_->outcomes_of(id);
    if (!outcomes) return outcomes.error();
    for (const Catalog::Place& place : *outcomes) record.records.push_back(place.id);
  }
  return write_record(*writer_, RecordKind::erasure, encode(record));
}

/// Unless a legal hold forbids it: from the last look at them until it is on record nobody can set another.
Result<RecordId> Journal::decide_erasure(const std::vector<RecordId>& entries, const std::string& by, const std::string& reason,
                                         const std::function<Status()>& release) {
  auto last_hold = last_legal_hold();
  if (!last_hold) return last_hold.error();
  if (Status allowed = check_legal_holds(entries); !allowed) return allowed.error();
  std::lock_guard one_after_another(deciding_);
  if (Status settled = settle_down(false); !settled) return settled.error();
  auto last = last_legal_hold();
  if (!last) return last.error();
  if (*last != *last_hold)
    if (Status allowed = check_legal_holds(entries); !allowed) return allowed.error();
  if (Status released = release ? release() : Status(); !released) return released.error();
  if (Status settled = settle_down(true); !settled) return settled.error();
  return order_erasure(entries, by, reason);
}

Result<Journal::Erased> Journal::erase(const std::vector<RecordId>& entries, const std::string& by, const std::string& reason,
                                       const std::function<void(double)>& on_progress, const std::function<Status()>& release) {
  std::lock_guard one_at_a_time(maintenance_);
  Erased erased;
  if (Status finished = finish_removals(); !finished) return finished.error();
  if (Status settled = settle_down(false); !settled) return settled.error();
  if (!entries.empty()) {
    auto ordered = decide_erasure(entries, by, reason, release);
    if (!ordered) return ordered.error();
    erased.record = *ordered;
    erased.entries = entries.size();
    if (Status settled = settle_down(false); !settled) return settled.error();
  }
  // This erasure's work, and that of those before it which were interrupted. What one takes away may have been in another's way.
  Status problem;
  std::uint64_t before = 0;
  do {
    before = erased.segments;
    problem = {};
    auto unfinished = catalog_->unfinished_erasures();
    if (!unfinished) return unfinished.error();
    for (const Catalog::Place& place : *unfinished) {
      Status done = carry_out(place, erased, on_progress);
      if (!may_go_on(done, problem)) return done.error();
    }
  } while (!problem && erased.segments > before);
  if (Status destroyed = destroy_leftovers(path_); !destroyed) return destroyed.error();
  if (!problem)
    return Error{ErrorCode::corrupt, problem.error().message +
                                         "; what is to be erased in that segment stays until its file is put back from a "
                                         "backup, all else is erased"};
  return erased;
}

/// Rewrites the segments without the records, and takes them out of by_segment. One that is damaged stays as it is, and keeps none of the
/// others from it: it is what the error is about.
Status Journal::rewrite_without(std::map<std::uint32_t, std::set<RecordId>>& by_segment, Erased& erased,
                                const std::function<void(double)>& on_progress) {
  auto reaches_newest = [&] { return !by_segment.empty() && by_segment.rbegin()->first >= segments_->newest(); };
  // Outcomes may have come since the newest segment was ended. One that is still written must never be rewritten: what the writer adds
  // would go with the old file.
  if (reaches_newest())
    if (Status settled = settle_down(true); !settled) return settled;
  if (reaches_newest())
    return Error{ErrorCode::unavailable, fmt::format("segment {} is still written; erasing goes on with the next try", by_segment.rbegin()->first)};
  // Of one that cannot be sealed since it is damaged, the rewriting tells.
  if (Status sealed = sealer_->seal_below(segments_->newest()); !sealed && !is_damage(sealed.error())) return sealed;
  RewriteOptions options;
  options.goes_on = [this] { return !is_interrupted_; };
  Status problem;
  std::size_t done = 0, wanted = by_segment.size();
  for (auto next = by_segment.begin(); next != by_segment.end();) {
    const auto& [number, ids] = *next;
    auto segment = segments_->get(number);
    if (!segment) return segment.error();
    options.erased = ids;
    Status rewritten = rewrite_segment(path_, **segment, *keys_, *signing_key_, options);
    if (!may_go_on(rewritten, problem)) return rewritten;
    ++done;
    if (on_progress) on_progress(static_cast<double>(done) / static_cast<double>(wanted));
    if (rewritten) {
      segments_->forget(number);
      ++erased.segments;
    }
    next = rewritten ? by_segment.erase(next) : std::next(next);
  }
  return problem;
}

/// Does what an erasure record says, as far as it is not done.
Status Journal::carry_out(const Catalog::Place& place, Erased& erased, const std::function<void(double)>& on_progress) {
  auto home = segments_->get(place.segment);
  // It was pruned, and all before it, where the erased entries were.
  if (!home && home.error().code == ErrorCode::not_found) return cataloger_->run([&](Catalog& catalog) { return catalog.finish_erasure(place.id); });
  if (!home) return home.error();
  auto stored = (*home)->record(place.id);
  if (!stored) return stored.error();
  std::optional<ErasureRecord> record;
  if (*stored && (*stored)->damage.empty()) record = decode_erasure((*stored)->encoded);
  if (!record) return Error{ErrorCode::corrupt, fmt::format("erasure record {} is damaged; run: holdfast journal verify", place.id)};
  Status problem;
  std::map<std::uint32_t, std::set<RecordId>> all, by_segment;
  for (RecordId id : record->records) {
    auto segment = segments_->holding(id);
    if (!segment && segment.error().code == ErrorCode::not_found) continue;  // pruned meanwhile
    if (!segment && !may_go_on(segment.error(), problem)) return segment.error();
    if (!segment) continue;
    auto one = (*segment)->record(id);
    if (!one && !may_go_on(one.error(), problem)) return one.error();
    if (!one) continue;
    all[(*segment)->header().number].insert(id);
    if (*one && !(*one)->is_erased) by_segment[(*segment)->header().number].insert(id);
  }
  Status rewritten = rewrite_without(by_segment, erased, on_progress);
  if (!may_go_on(rewritten, problem)) return rewritten;
  if (forget_elsewhere_)
    if (Status forgotten = forget_elsewhere_(record->records); !forgotten) return forgotten;
  return cataloger_->run([&](Catalog& catalog) {
    for (const auto& [number, ids] : all)
      if (!by_segment.contains(number))
        if (Status forgotten = catalog.forget(number, ids); !forgotten) return forgotten;
    return problem ? catalog.finish_erasure(place.id) : problem;  // what is not finished is tried again
  });
}

}  // namespace holdfast::journal
