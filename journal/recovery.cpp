#include "journal/recovery.h"

#include <fmt/format.h>

#include <algorithm>

#include "journal/journal.h"

namespace holdfast::journal {
namespace {

Status append_all(const std::vector<SealedRecord>& records, const Segment& newest, Segment::Tail& tail) {
  Result<Transaction> transaction = Transaction::begin(newest.environment(), Environment::Mode::write);
  if (!transaction) return transaction.error();
  Segment::Tail end = tail;
  for (const SealedRecord& record : records)
    if (Status appended = append_record(*transaction, end, record); !appended) return appended;
  Status committed = transaction->commit();
  if (committed) tail = end;
  return committed;
}

}  // namespace

TakenUp take_up_notepad(const std::string& path, const KeyRing& keys, const std::vector<std::uint32_t>& numbers, const Segment& newest,
                        Segment::Tail& tail, const Writer::OnEvent& on_event) {
  auto notepad = Notepad::open(path, keys.base_key());
  if (!notepad) {
    on_event(false,
             fmt::format("{}; should Holdfast be killed, entries of the last milliseconds before will be marked abandoned", notepad.error().message));
    return {Notepad::for_this_process(), {}};
  }
  auto missing = missing_in_log(**notepad, path, keys, numbers, newest, tail);
  if (!missing) on_event(true, fmt::format("outcomes of just before the last stop are lost: {}", missing.error().message));
  if (missing && !missing->empty()) {
    Status appended = append_all(*missing, newest, tail);
    if (!appended)
      on_event(true, fmt::format("{} records of just before the last stop wait in memory: {}", missing->size(), appended.error().message));
    if (!appended) return {std::move(*notepad), std::move(*missing)};
    on_event(false, fmt::format("{} records of just before the last stop were brought into the journal", missing->size()));
  }
  (*notepad)->wipe_all();
  return {std::move(*notepad), {}};
}

void submit_unwritten(const TakenUp& taken_up, Writer& writer) {
  if (taken_up.unwritten.empty()) return;
  taken_up.notepad->wipe_all();  // the writer notes them anew
  for (const SealedRecord& record : taken_up.unwritten) {
    RecordCell cell;
    cell.kind = record.kind;
    cell.commitment = record.commitment;
    cell.sealed = record.sealed;
    Writer::Job job;
    job.key = writer.current_key();
    auto opened = open_record(job.key->key, cell, Decompressor());
    if (!opened) continue;  // it was sealed with this key a moment ago
    job.encoded = std::move(opened->encoded);
    job.record = record;
    writer.submit(std::move(job));
  }
}

void abandon_unsettled(const Catalog& catalog, Writer& writer, const Writer::OnEvent& on_event) {
  auto unsettled = catalog.unsettled();
  if (!unsettled) return on_event(true, unsettled.error().message);
  for (RecordId id : *unsettled) {
    OutcomeRecord outcome;
    outcome.time_us = now_us();
    outcome.entry = id;
    outcome.changes.push_back({OutcomeRecord::every_pending, Outcome::abandoned, std::string(stopped_before_answer)});
    writer.submit_record(RecordKind::outcome, encode(outcome));
  }
  if (!unsettled->empty())
    on_event(false, fmt::format("{} entries of before the last stop had no outcome; they are marked abandoned", unsettled->size()));
}

void mark_unanswered(Journal& journal, Notepad& notepad, const Writer::OnEvent& on_event) {
  std::size_t marked = 0;
  for (const Notepad::Sent& sent : notepad.unanswered()) {
    auto entry = journal.settled_entry(sent.entry);
    if (!entry) continue;
    const std::vector<Recipient>& recipients = entry->message.recipients;
    bool is_held = std::any_of(recipients.begin(), recipients.end(), [](const Recipient& one) { return one.outcome == Outcome::held; });
    if (!is_held || entry->message.content_id != sent.content) continue;
    journal.writer().submit_record(RecordKind::outcome, encode(OutcomeRecord{now_us(), sent.entry, true, {}}));
    ++marked;
  }
  if (marked > 0)
    on_event(false,
             fmt::format("{} held entries had been sent before the last stop, and not answered; they are marked as possible duplicates", marked));
  notepad.forget_unanswered();
}

}  // namespace holdfast::journal
