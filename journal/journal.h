// The journal as its daemon holds it: the lock, the key, the writer and the catalog, opened together.
#pragma once

#include <atomic>
#include <chrono>
#include <map>
#include <memory>
#include <set>
#include <span>
#include <string>

#include "journal/cataloger.h"
#include "journal/draft.h"
#include "journal/files.h"
#include "journal/reader.h"
#include "journal/sealed_store.h"
#include "journal/sealer.h"
#include "journal/writer.h"

namespace holdfast::journal {

struct JournalOptions {
  std::string path;
  MasterKeySource key;  ///< the file is made when the journal is new
  std::uint64_t segment_size = 1ULL << 30;
  std::int64_t segment_age_us = 0;
  std::chrono::milliseconds lazy_delay{10};  ///< how long a record for which nobody waits may stay uncommitted
  bool compacts = false;                     ///< sealed segments are compressed in the background
  /// Of a command, which ends by itself. A daemon waits until no command has the journal open.
  bool is_command = false;
  std::vector<Witness> witnesses;  ///< who is shown the head of each sealed segment; asked on a thread of its own
};

class Journal {
 public:
  /// Opens or makes the journal, catches the catalog up with the log, and settles as `abandoned` what a crash left
  /// without an outcome. A damaged newest segment is left as it is and followed by a new one, loudly: mail goes on.
  ///
  /// Errors: busy (a daemon has it open; or, when we are a command, another command), wrong_key, permission, no_space,
  /// not_found (segments without their key).
  static Result<std::unique_ptr<Journal>> open(const JournalOptions& options, Writer::OnEvent on_event);

  Writer& writer() { return *writer_; }
  /// Ends the newest segment, so that it is sealed. Returns its number, for which a head will be there soon; 0 when there is nothing
  /// in it. Thread-safe, does not wait.
  std::uint32_t seal();
  /// The path of the file that is written to, when somebody has removed it, or put another there; else empty. Thread-safe.
  std::string displaced();
  /// As KeyRing::put_back(). Thread-safe.
  Result<bool> put_key_ring_back() { return keys_->put_back(); }

  /// Commits all that was submitted: who waits for it is told now, and nobody is told anything later. For the end: nothing can be written
  /// any more. Once no thread submits.
  void finish_writing() { writer_->finish(); }

  /// The legal holds that are set, by name. Thread-safe.
  Result<std::map<std::string, LegalHoldRecord>> legal_holds() const;

  /// Who keeps something of entries beside the journal: called before an erasure counts as done, or a segment is taken away, with all
  /// its ids; an error leaves it to be finished later. To be set before erase() or prune() is called.
  void on_erase(std::function<Status(const std::vector<RecordId>&)> forget) { forget_elsewhere_ = std::move(forget); }

  /// Rewriting ends soon, also what is at work, and prune(); what is left of an erasure is for the next start. Thread-safe.
  void interrupt() { is_interrupted_ = true; }

  struct Erased {
    std::uint64_t entries = 0, segments = 0;
    RecordId record = 0;  ///< the erasure record
  };
  /// Erases entries with all that is recorded of them: an erasure record says by whom and why, their segments are rewritten without
  /// them under new keys, and the catalog forgets them. Blocks, for long perhaps: for a thread of its own. When it is interrupted,
  /// the next call finishes it first, also one with no entries. Error: busy, naming the legal hold that forbids it; nothing is changed
  /// then. release, where there is one, is asked when nothing else stands in the way: it sees to it that nobody delivers the entries any
  /// more; its error is this one's. Error: corrupt, when a segment is damaged: it stays as it is, all else is erased, and the next call tries again.
  /// on_progress: 0 to 1.
  Result<Erased> erase(const std::vector<RecordId>& entries, const std::string& by, const std::string& reason,
                       const std::function<void(double)>& on_progress, const std::function<Status()>& release = {});

  /// KeyRing::rekey() or, when it is to be finished, KeyRing::finish_rekey(), on record; new mail is in a new segment under the new
  /// key. Returns whether only one master key opens the journal now.
  Result<bool> rekey(const MasterKeySource& source, const std::string& new_key, Rekey how, const std::string& by, const std::string& reason);
  /// What opens the segments; copies share the same keys, and may outlive the journal. Thread-safe.
  const KeyRing& keys() const { return *keys_; }

  struct Pruned {
    std::vector<std::uint32_t> segments;  ///< that are gone
    std::vector<std::uint32_t> emptied;   ///< that lost their mail, and stay since one before them does, or for the record of a legal hold
    std::string stays;                    ///< which segment is old enough, and stays with its mail, and why; empty when none does
  };
  /// Takes away the oldest segments that ended before the time, up to the first that must stay: with mail that is not delivered yet, or under
  /// a legal hold, or with the record of one. Those behind it lose their mail. With a record each. Blocks.
  Result<Pruned> prune(std::int64_t before_us, const std::string& by, const std::string& reason);

  /// Puts a legal hold, or its lifting, on record: what is erased or pruned after it knows of it. Blocks, also while an erasure is being
  /// decided. Error: busy when there is one of that name by now, or none to lift.
  Result<RecordId> record_legal_hold(const LegalHoldRecord& hold);

  // For the daemon's own reading; thread-safe.
  /// An entry as it was journaled; its recipients' outcomes may have changed since. Errors: not_found, corrupt.
  Result<Entry> entry(RecordId id);
  /// Reads one frame of an entry's content (65252 bytes but for the last); nothing after the last. Error: corrupt.
  Result<std::optional<std::string>> frame(const Entry& entry, std::uint32_t index);
  /// Entries after the id that have held recipients, as far as the catalog knows (it lags by a second or so).
  Result<std::vector<Catalog::Held>> held_after(RecordId id, std::size_t most) const { return catalog_->held_after(id, most); }
  /// The same of one entry; nothing when it has none.
  Result<std::optional<Catalog::Held>> held(RecordId id) const {
    auto next = held_after(id - 1, 1);
    if (!next) return next.error();
    bool has_any = !next->empty() && next->front().entry == id;
    return has_any ? std::optional(next->front()) : std::nullopt;
  }
  /// Entries after the id that have the term, ascending, at most so many, as far as the catalog knows.
  Result<std::vector<RecordId>> find_after(Term term, const std::string& text, RecordId id, std::size_t most) const;
  /// Ids of entries after the id, ascending, at most so many. Those that stand where a segment is damaged are left out, and on_damage says so.
  Result<std::vector<RecordId>> messages_after(RecordId id, std::size_t most, const std::function<void(const Error&)>& on_damage) const;
  /// An entry with what became of its recipients, as far as the catalog knows.
  Result<Entry> settled_entry(RecordId id);
  /// The lowest number that a record still there may have.
  RecordId first_id() const;
  /// The last record that the catalog knows.
  RecordId indexed() const {
    auto position = catalog_->position();
    return position ? *position : 0;
  }
  /// The last record of before the start; 0: there was none.
  RecordId last_before() const { return last_before_; }
  /// The last message or outcome in the log since the start. indexed() follows within a second, or within milliseconds after
  /// hurry_index().
  RecordId last_mail() const { return writer_->state().last_mail; }
  void hurry_index() { cataloger_->hurry(); }
  /// What keys of stores beside the log are derived from.
  Key base_key() const { return keys_->base_key(); }
  /// The route's last state record of before the start, or nothing.
  Result<std::optional<StateRecord>> state_of(const std::string& route);

  /// A held entry is about to have been sent whole. Should Holdfast end before is_answered(), the next start marks it as a possible
  /// duplicate, if it is still held then. By one thread, which is_answered() is for too. Does not wait.
  void is_sent(const Entry& entry);
  /// What came of it was handed to the writer.
  void is_answered(RecordId entry);
  const std::string& path() const { return path_; }
  /// The store beside the log, for what is not derived from it. To be taken once.
  std::unique_ptr<SealedStore> take_store() { return std::move(store_); }
  /// When a record was written, for whoever acts on its age. A machine may come back without its clock and get the time later: what it
  /// wrote meanwhile must not be taken for decades old. The log knows better: no record is older than its segment, and the one before.
  /// @param time_us  what the clock said then; microseconds since 1970, as is the result
  std::int64_t written_us(RecordId id, std::int64_t time_us) const;
  /// When the oldest entry's segment was begun; microseconds since 1970.
  std::int64_t oldest_us() const;
  /// Bytes of all segment files. Looks at the disk.
  std::uint64_t bytes() const;
  /// Messages in the journal, those of before the start included, and those that were erased from segments
  /// which are still there.
  std::uint64_t entries() const { return entries_before_ + writer_->state().entries - entries_pruned_; }

 private:
  Journal() = default;
  Status settle_down(bool ends_segment);
  Status compact(std::uint32_t number, const std::function<bool()>& goes_on);
  Result<std::string> hold_on(RecordId entry, const std::map<std::string, LegalHoldRecord>& holds);
  Status forget_mail(const Catalog::Removal& removal);
  Status finish(const Catalog::Removal& removal);
  Status finish_removals();
  struct Old;
  Result<std::optional<Old>> find_old(std::span<const std::uint32_t> numbers) const;
  Status list_entries(Old& old, std::int64_t before_us) const;
  Result<std::string> why_on_hold(const Old& old);
  Result<std::string> why_mail_stays(Old& old, std::int64_t before_us);
  Result<bool> has_legal_hold(std::uint32_t segment) const;
  Status restate_routes_of(const Old& old);
  Status forget_elsewhere(const std::set<RecordId>& entries);
  struct Pruning;
  Result<RecordId> last_legal_hold() const;
  Status order(const ErasureRecord& record, RecordId last_hold);
  Status take_away(const Old& old, const Pruning& pruning);
  Result<std::set<RecordId>> mail_in(const Old& old, const Pruning& pruning) const;
  Result<std::string> empty_out(const Old& old, Pruning& pruning);
  Status prune_one(Old& old, Pruning& pruning);
  Status check_legal_holds(const std::vector<RecordId>& entries);
  Result<RecordId> order_erasure(const std::vector<RecordId>& entries, const std::string& by, const std::string& reason);
  Result<RecordId> decide_erasure(const std::vector<RecordId>& entries, const std::string& by, const std::string& reason,
                                  const std::function<Status()>& release);
  Status rewrite_without(std::map<std::uint32_t, std::set<RecordId>>& by_segment, Erased& erased, const std::function<void(double)>& on_progress);
  Status carry_out(const Catalog::Place& place, Erased& erased, const std::function<void(double)>& on_progress);

  std::string path_;
  std::function<Status(const std::vector<RecordId>&)> forget_elsewhere_;
  std::optional<KeyRing> keys_;
  std::optional<SigningKey> signing_key_;
  std::atomic<bool> is_interrupted_{false};
  std::mutex maintenance_;           ///< held by who rewrites segments, and while one is sealed
  std::set<std::uint32_t> emptied_;  ///< by prune(), as far as it has looked since the start
  std::mutex deciding_;              ///< held while a legal hold, or what is to go, is put on record; taken after the one above
  FileDescriptor lock_;
  std::uint64_t entries_before_ = 0;
  std::atomic<std::uint64_t> entries_pruned_{0};  ///< since the start
  RecordId last_before_ = 0;
  std::unique_ptr<SealedStore> store_;
  std::unique_ptr<Segments> segments_;
  const Catalog* catalog_ = nullptr;      ///< the cataloger's
  std::unique_ptr<Notepad> notepad_;      ///< outlives the writer
  std::unique_ptr<Cataloger> cataloger_;  ///< too
  std::unique_ptr<Sealer> sealer_;        ///< too
  std::unique_ptr<Writer> writer_;
};

/// Builds the catalog anew from the segments, also while a daemon writes. Returns the number of entries indexed.
/// on_progress gets the share done, 0 to 1; on_damage is told of segments that cannot be read, or not to their end.
Result<std::uint64_t> rebuild_catalog(const std::string& path, const MasterKeySource& key, const std::function<void(double)>& on_progress,
                                      const std::function<void(const Error&)>& on_damage);

}  // namespace holdfast::journal
