// Journal's erasure (law 7, GDPR Art. 17): the record of it first, then the segments, then the catalog.
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <map>
#include <set>
#include <thread>

#include "journal/journal.h"
#include "journal/rewrite.h"
#include "journal/waiting_ticket.h"

namespace holdfast::journal {
namespace {

constexpr auto glance = std::chrono::milliseconds(5);
constexpr auto patience = std::chrono::seconds(30);

/// Looks again and again until it is so.
template <class Condition>
bool wait_until(Condition condition) {
  auto end = std::chrono::steady_clock::now() + patience;
  while (!condition()) {
    if (std::chrono::steady_clock::now() > end) return false;
    std::this_thread::sleep_for(glance);
  }
  return true;
}

}  // namespace

/// All that is written now is in segments that are written no more, and the catalog knows it.
Status Journal::settle_down() {
  RecordId last = writer_->state().last_id;
  std::uint32_t ended = seal();
  bool is_ended = ended == 0 || wait_until([&] { return segments_->newest() > ended; });
  if (!is_ended) return Error{ErrorCode::unavailable, "the newest segment could not be ended; see the daemon's log"};
  bool is_indexed = wait_until([&] {
    auto position = catalog_->position();
    return position && *position >= last;
  });
  if (!is_indexed) return Error{ErrorCode::unavailable, "the catalog lags behind the log; see the daemon's log"};
  return {};
}

Result<Journal::Erased> Journal::erase(const std::vector<RecordId>& entries, const std::string& by, const std::string& reason,
                                       const std::function<void(double)>& on_progress) {
  std::lock_guard one_at_a_time(maintenance_);
  Erased erased;
  if (entries.empty()) return erased;
  if (Status settled = settle_down(); !settled) return settled.error();
  std::map<std::uint32_t, std::set<RecordId>> by_segment;
  for (RecordId id : entries) {
    auto segment = segments_->holding(id);
    if (!segment) return segment.error();
    by_segment[(*segment)->header().number].insert(id);
    auto outcomes = catalog_->outcomes_of(id);
    if (!outcomes) return outcomes.error();
    for (const Catalog::Place& place : *outcomes) by_segment[place.segment].insert(place.id);
  }
  ErasureRecord record;
  record.time_us = now_us();
  record.by = by;
  record.reason = reason;
  for (const auto& [number, ids] : by_segment) record.records.insert(record.records.end(), ids.begin(), ids.end());
  auto written = write_record(*writer_, RecordKind::erasure, encode(record));
  if (!written) return written.error();
  for (const auto& [number, ids] : by_segment) {
    auto segment = segments_->get(number);
    if (!segment) return segment.error();
    if (Status rewritten = rewrite_segment(path_, **segment, ids, master_, *signing_key_); !rewritten) return rewritten.error();
    segments_->forget(number);
    ++erased.segments;
    if (on_progress) on_progress(static_cast<double>(erased.segments) / static_cast<double>(by_segment.size()));
  }
  std::set<RecordId> gone(entries.begin(), entries.end());
  Status forgotten = cataloger_->run([&](Catalog& catalog) { return catalog.forget(gone); });
  if (!forgotten) return forgotten.error();
  erased.entries = entries.size();
  erased.record = *written;
  return erased;
}

Result<std::vector<std::uint32_t>> Journal::prune(std::int64_t before_us, const std::string& by, const std::string& reason) {
  std::lock_guard one_at_a_time(maintenance_);
  std::vector<std::uint32_t> pruned;
  auto numbers = list_segments(path_);
  if (!numbers) return numbers.error();
  for (std::size_t i = 0; i + 1 < numbers->size(); ++i) {
    std::uint32_t number = (*numbers)[i];
    auto segment = segments_->get(number);
    auto next = segments_->get((*numbers)[i + 1]);
    if (!segment) return segment.error();
    if (!next) return next.error();
    RecordId first = (*segment)->header().first_cell, end = (*next)->header().first_cell;
    auto held = catalog_->held_after(first == 0 ? 0 : first - 1, 1);
    if (!held) return held.error();
    bool is_old = (*next)->header().created_us < before_us;
    bool has_held = !held->empty() && held->front().entry < end;
    if (!is_old || has_held) break;
    ErasureRecord record;
    record.time_us = now_us();
    record.by = by;
    record.reason = fmt::format("segment {}, {}", number, reason);
    auto written = write_record(*writer_, RecordKind::erasure, encode(record));
    if (!written) return written.error();
    std::set<RecordId> gone;
    Status walked = (*segment)->each_record(0, [&](Segment::StoredRecord& one) {
      if (one.kind == RecordKind::message) gone.insert(one.id);
      return true;
    });
    if (!walked) return walked.error();
    segments_->forget(number);
    if (Status removed = remove_segment(path_, number); !removed) return removed.error();
    if (Status forgotten = cataloger_->run([&](Catalog& catalog) { return catalog.forget(gone); }); !forgotten) return forgotten.error();
    pruned.push_back(number);
  }
  return pruned;
}

}  // namespace holdfast::journal
