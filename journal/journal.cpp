#include "journal/journal.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>

#include "journal/head.h"
#include "journal/page_check.h"
#include "journal/recovery.h"
#include "journal/rehearsal.h"
#include "journal/rewrite.h"
#include "journal/segment.h"
#include "journal/write_record.h"

namespace holdfast::journal {
namespace {

constexpr std::size_t index_batch = 4096;

/// Takes a damaged file out of the way, but not away.
void put_aside(const std::string& file) {
  std::error_code ignored;
  std::filesystem::rename(file, file + ".damaged", ignored);
  std::filesystem::remove(file + "-lock", ignored);
}

/// Feeds the records of one segment, from an id on, to sink in batches.
Status feed(const Segment& segment, RecordId from, const Catalog::Sink& sink) {
  std::vector<Committed> batch;
  Status taken;
  Status read = segment.each_record(from, [&](Segment::StoredRecord& record) {
    if (record.damage.empty()) batch.push_back({record.id, segment.header().number, record.kind, std::move(record.encoded)});
    if (batch.size() < index_batch) return true;
    taken = sink(batch);
    batch.clear();
    return static_cast<bool>(taken);
  });
  if (!read) return read;
  if (!taken || batch.empty()) return taken;
  return sink(batch);
}

/// Brings the catalog up to date with a segment; what is damaged there is named and passed over. Error: the catalog's.
Status catch_up(Catalog& catalog, const Segment& segment, const Writer::OnEvent& on_event) {
  Result<RecordId> position = catalog.position();
  if (!position) return position.error();
  Status applied;
  Status read = feed(segment, *position + 1, [&](const std::vector<Committed>& records) { return applied = catalog.apply(records); });
  if (applied && !read) on_event(true, read.error().message);
  return applied;
}

struct Newest {
  std::shared_ptr<Segment> segment;
  Segment::Tail tail;
};

/// The newest segment goes when nothing is in it and the one before was written on: it was to be begun, which failed, and it could not be
/// taken away then. Of damage, others tell.
Status take_away_unused(const std::string& path, const KeyRing& keys, std::vector<std::uint32_t>& numbers, const Writer::OnEvent& on_event) {
  if (numbers.size() < 2) return {};
  {
    auto newest = Segment::open(path, numbers.back(), keys, Environment::Mode::read);
    auto before = Segment::open(path, numbers[numbers.size() - 2], keys, Environment::Mode::read);
    if (!newest || !before) return {};
    auto end = (*newest)->next_cell(), end_before = (*before)->next_cell();
    const RecordId first = (*newest)->header().first_cell;
    bool is_unused = end && end_before && *end == first && *end_before > first;
    if (!is_unused) return {};
  }
  const std::string file = segment_path(path, numbers.back());
  if (::unlink(file.c_str()) != 0) return lmdb_error(errno, file);
  if (Status synced = sync_folder_of(file); !synced) return synced;
  numbers.pop_back();
  on_event(false, fmt::format("took away {}: it could not be begun, and nothing is in it", file));
  return {};
}

/// Opens the newest segment for writing, or begins one: the first, or one after a segment that is damaged.
Result<Newest> open_newest(const JournalOptions& options, const KeyRing& keys, const std::vector<std::uint32_t>& numbers,
                           const Writer::OnEvent& on_event) {
  std::uint64_t map_size = Writer::map_size(options.segment_size);
  SegmentHeader header;
  header.number = 1;
  header.first_cell = 1;
  header.created_us = now_us();
  if (!numbers.empty()) {
    Status sound = check_pages_written_next(segment_path(options.path, numbers.back()));
    auto opened = sound || sound.error().code != ErrorCode::corrupt
                      ? Segment::open(options.path, numbers.back(), keys, Environment::Mode::write, map_size)
                      : Result<std::unique_ptr<Segment>>(sound.error());
    bool was_sealed = opened && ((*opened)->header().is_compacted || std::filesystem::exists(head_path(options.path, numbers.back())));
    if (was_sealed)
      opened = Error{ErrorCode::corrupt,
                     fmt::format("{}: was sealed, so there was a segment after it, which is missing", segment_path(options.path, numbers.back()))};
    if (opened) {
      auto tail = (*opened)->tail();
      if (tail) return Newest{std::shared_ptr<Segment>(std::move(*opened)), *tail};
      opened = tail.error();
    }
    if (opened.error().code != ErrorCode::corrupt) return opened.error();
    on_event(true, fmt::format("{}; mail goes on in a new segment, and the chain starts anew there. Run `holdfast journal "
                               "verify`, and restore the segment from your backup",
                               opened.error().message));
    header.number = numbers.back() + 1;
    header.follows_damage = true;
    // Numbers must never be used twice, and those of the damaged segment are unknown: a segment has far fewer than this.
    header.first_cell = (static_cast<CellNumber>(header.number) << 40) + 1;
  }
  auto created = Segment::create(options.path, header, keys, map_size);
  if (!created) return created.error();
  return Newest{std::shared_ptr<Segment>(std::move(*created)), Segment::Tail{header.first_cell, header.previous_link}};
}

/// The catalog, up to date.
Result<std::unique_ptr<Catalog>> open_current_catalog(const std::string& path, const KeyRing& keys, const std::vector<std::uint32_t>& numbers,
                                                      const Segment& newest, const Writer::OnEvent& on_event) {
  auto catalog = Catalog::open(path, keys.base_key(), Environment::Mode::write);
  if (!catalog) return catalog;
  if (Status checked = (*catalog)->check(); !checked) return checked.error();
  Result<RecordId> position = (*catalog)->position();
  if (!position) return position.error();
  // Older segments are opened only as far back as the catalog lags.
  for (std::size_t i = 0; i < numbers.size(); ++i) {
    std::uint32_t number = numbers[i];
    if (number == newest.header().number) continue;
    bool is_needed = i + 1 == numbers.size() || *position == 0;
    if (!is_needed && *position >= newest.header().first_cell - 1) continue;
    auto segment = Segment::open(path, number, keys, Environment::Mode::read);
    if (!segment) {
      on_event(true, segment.error().message);
      continue;
    }
    if (Status caught = catch_up(**catalog, **segment, on_event); !caught) return caught.error();
  }
  if (Status caught = catch_up(**catalog, newest, on_event); !caught) return caught.error();
  return catalog;
}

/// Whether the catalog can be brought up to date without harm. To be called before the segments are opened.
bool is_catalog_sound(const std::string& path, const KeyRing& keys, const std::vector<std::uint32_t>& numbers) {
  std::error_code ignored;
  if (numbers.empty() || !std::filesystem::exists(Catalog::path_in(path), ignored)) return true;
  // What goes wrong in an orderly way goes wrong again in this process, and is told there.
  return comes_through([&] {
    auto newest = Segment::open(path, numbers.back(), keys, Environment::Mode::read);
    if (newest) (void)open_current_catalog(path, keys, numbers, **newest, [](bool, const std::string&) {});
  });
}

/// A damaged catalog does not stop the mail either: it is derived from the segments, so it is made anew. With a large journal that takes
/// its time.
Result<std::unique_ptr<Catalog>> open_catalog(const std::string& path, const KeyRing& keys, const std::vector<std::uint32_t>& numbers,
                                              const Segment& newest, bool is_sound, const Writer::OnEvent& on_event) {
  std::string file = Catalog::path_in(path);
  Result<std::unique_ptr<Catalog>> catalog = Error{ErrorCode::corrupt, file + ": the file is damaged"};
  if (is_sound) catalog = open_current_catalog(path, keys, numbers, newest, on_event);
  if (catalog || catalog.error().code != ErrorCode::corrupt) return catalog;
  on_event(true, fmt::format("{}; it is put aside as {}.damaged, and made anew from the segments", catalog.error().message, file));
  put_aside(file);
  return open_current_catalog(path, keys, numbers, newest, on_event);
}

/// A damaged store does not stop the mail: it is put aside and begun anew.
Result<std::unique_ptr<SealedStore>> open_store(const std::string& path, const Key& base, const Writer::OnEvent& on_event) {
  std::string file = path + "/directory.lmdb";
  auto store = SealedStore::open(file, base, Environment::Mode::write);
  Status read;
  if (store) read = (*store)->each([](SealedStore::Item&) { return true; });
  bool is_damaged = store ? !read : store.error().code == ErrorCode::corrupt;
  if (!is_damaged) return store;
  on_event(true,
           fmt::format("{} is damaged and put aside as {}.damaged; recipients are learned from the journal; import the others again", file, file));
  store = Error{ErrorCode::corrupt, file};
  put_aside(file);
  return SealedStore::open(file, base, Environment::Mode::write);
}

}  // namespace

Result<std::unique_ptr<Journal>> Journal::open(const JournalOptions& options, Writer::OnEvent on_event) {
  if (Status folder = make_folder(segment_folder(options.path)); !folder) return folder.error();
  LockHolder self{options.is_command, {}};
  if (!options.is_command) self.on_wait = [&](const std::string& what) { on_event(true, what); };
  auto lock = lock_file(daemon_lock_path(options.path), self);
  if (!lock) return lock.error();
  auto numbers = list_segments(options.path);
  if (!numbers) return numbers.error();
  auto keys = KeyRing::open_or_create(options.path, options.key, numbers->empty());
  if (!keys) return keys.error();
  if (Status taken = take_away_unused(options.path, *keys, *numbers, on_event); !taken) return taken.error();
  const bool is_sound = is_catalog_sound(options.path, *keys, *numbers);
  auto newest = open_newest(options, *keys, *numbers, on_event);
  if (!newest) return newest.error();

  TakenUp taken_up = take_up_notepad(options.path, *keys, *numbers, *newest->segment, newest->tail, on_event);
  auto catalog = open_catalog(options.path, *keys, *numbers, *newest->segment, is_sound, on_event);
  if (!catalog) return catalog.error();
  Result<std::uint64_t> entries = (*catalog)->entries();
  if (!entries) return entries.error();

  auto store = open_store(options.path, keys->base_key(), on_event);
  if (!store) return store.error();
  std::unique_ptr<Journal> journal(new Journal);
  journal->store_ = std::move(*store);
  journal->path_ = options.path;
  journal->lock_ = std::move(*lock);
  journal->entries_before_ = *entries;
  journal->last_before_ = newest->tail.next_cell - 1;
  journal->segments_ = std::make_unique<Segments>(options.path, *keys, *numbers);
  journal->segments_->adopt(newest->segment);
  const Catalog& index = **catalog;
  journal->catalog_ = &index;
  journal->cataloger_ = std::make_unique<Cataloger>(std::move(*catalog), [on_event](const std::string& what) { on_event(true, what); });
  if (Status destroyed = destroy_leftovers(options.path); !destroyed) on_event(true, destroyed.error().message);
  auto signing_key = SigningKey::open(options.path, keys->base_key());
  if (!signing_key) return signing_key.error();
  journal->keys_ = *keys;
  journal->signing_key_ = *signing_key;
  SealerOptions sealing{options.path, {}, options.witnesses, on_event, journal->maintenance_};
  if (options.compacts)
    sealing.compact = [own = journal.get()](std::uint32_t number, const std::function<bool()>& goes_on) { return own->compact(number, goes_on); };
  journal->sealer_ = std::make_unique<Sealer>(sealing, *journal->segments_, *signing_key, newest->segment->header().number);
  WriterOptions writing{
      options.path,           options.segment_size,
      options.segment_age_us, options.lazy_delay,
      taken_up.notepad.get(), [sealer = journal->sealer_.get(), segments = journal->segments_.get()] { sealer->newest_is(segments->newest()); }};
  journal->writer_ = std::make_unique<Writer>(
      writing, *keys, *journal->segments_, newest->segment, newest->tail,
      [cataloger = journal->cataloger_.get()](std::vector<Committed>& records) { cataloger->add(records); }, on_event);
  submit_unwritten(taken_up, *journal->writer_);
  journal->notepad_ = std::move(taken_up.notepad);
  abandon_unsettled(index, *journal->writer_, on_event);
  mark_unanswered(*journal, *journal->notepad_, on_event);
  return journal;
}

Result<bool> Journal::rekey(const MasterKeySource& source, const std::string& new_key, Rekey how, const std::string& by, const std::string& reason) {
  std::lock_guard one_at_a_time(maintenance_);
  Result<bool> is_finished = source.command.empty();
  if (how == Rekey::finish)
    is_finished = keys_->finish_rekey(source);
  else if (Status changed = keys_->rekey(source, new_key, how == Rekey::replace_lost); !changed)
    is_finished = changed.error();
  if (!is_finished) return is_finished;
  const char* option = how == Rekey::finish ? " --finish" : how == Rekey::replace_lost ? " --lost" : "";
  AccessRecord record{now_us(), by, std::string("journal rekey") + option, reason, 0, {}};
  auto written = write_record(*writer_, RecordKind::access, encode(record));
  if (!written) return written.error();
  seal();
  return is_finished;
}

Result<std::vector<RecordId>> Journal::find_after(Term term, const std::string& text, RecordId id, std::size_t most) const {
  // Of the segments that may hold later records, the first is the one that holds the id.
  auto holding = segments_->holding(id + 1);
  std::vector<RecordId> found;
  for (std::uint32_t number : segments_->numbers(holding ? (*holding)->header().number : 0)) {
    if (found.size() >= most) break;
    auto ids = catalog_->find(number, term, text, id + 1, false, most - found.size());
    if (!ids) return ids.error();
    found.insert(found.end(), ids->begin(), ids->end());
  }
  return found;
}

Result<std::vector<RecordId>> Journal::messages_after(RecordId id, std::size_t most, const std::function<void(const Error&)>& on_damage) const {
  auto holding = segments_->holding(id + 1);
  std::vector<RecordId> found;
  for (std::uint32_t number : segments_->numbers(holding ? (*holding)->header().number : 0)) {
    if (found.size() >= most) break;
    auto segment = segments_->get(number);
    auto take = [&](Segment::StoredRecord& record) {
      if (!record.is_erased) found.push_back(record.id);
      return found.size() < most;
    };
    Status walked = segment ? (*segment)->each_record_of(RecordKind::message, id + 1, take) : segment.error();
    bool is_damaged = !walked && is_damage(walked.error());
    bool is_pruned = !walked && walked.error().code == ErrorCode::not_found;
    if (is_damaged) on_damage(walked.error());
    if (!walked && !is_damaged && !is_pruned) return walked.error();
  }
  return found;
}

std::int64_t Journal::oldest_us() const {
  for (std::uint32_t number : segments_->numbers())
    if (auto place = segments_->place(number)) return place->created_us;
  return 0;
}

std::int64_t Journal::written_us(RecordId id, std::int64_t time_us) const {
  auto segment = segments_->holding(id);
  if (!segment) return time_us;
  const std::uint32_t number = (*segment)->header().number;
  for (std::uint32_t one : {number, number - 1}) {
    if (one == 0) continue;  // before the first
    auto place = segments_->place(one);
    // A clock that was ahead once is not believed either.
    if (place && place->created_us <= now_us()) time_us = std::max(time_us, place->created_us);
  }
  return time_us;
}

RecordId Journal::first_id() const {
  auto first = segments_->place(segments_->numbers().front());
  return first ? first->first_cell : 0;
}

Result<Entry> Journal::settled_entry(RecordId id) {
  Result<Entry> entry = this->entry(id);
  if (!entry) return entry;
  auto places = catalog_->outcomes_of(id);
  if (!places) return places.error();
  for (const Catalog::Place& place : *places) {
    auto segment = segments_->get(place.segment);
    if (!segment) continue;
    auto record = (*segment)->record(place.id);
    if (!record || !*record || !(*record)->damage.empty()) continue;
    if (auto outcome = decode_outcome((*record)->encoded)) bring_up_to_date(*entry, *outcome);
  }
  return entry;
}

void Journal::is_sent(const Entry& entry) { notepad_->sent({entry.id, entry.message.content_id}); }

void Journal::is_answered(RecordId entry) { notepad_->answered(entry); }

Status Journal::compact(std::uint32_t number, const std::function<bool()>& goes_on) {
  std::lock_guard one_at_a_time(maintenance_);
  // Only now: it may just have been rewritten without something that was erased.
  auto segment = segments_->get(number);
  if (!segment) return segment.error();
  if ((*segment)->header().is_compacted) return {};
  if (Status rewritten = rewrite_segment(path_, **segment, *keys_, *signing_key_, {{}, true, [&] { return goes_on() && !is_interrupted_; }});
      !rewritten)
    return rewritten;
  segments_->forget(number);
  return {};
}

std::uint32_t Journal::seal() {
  WriterState state = writer_->state();
  if (state.is_segment_empty) return 0;
  writer_->roll_soon();
  return state.segment;
}

std::string Journal::displaced() {
  const std::uint32_t number = segments_->newest();
  auto newest = segments_->get(number);
  bool is_displaced = newest && !(*newest)->environment().is_in_place() && segments_->newest() == number;
  return is_displaced ? segment_path(path_, number) : "";
}

Result<Entry> Journal::entry(RecordId id) {
  const Error unknown{ErrorCode::not_found, fmt::format("there is no entry {} in this journal", id)};
  auto segment = segments_->holding(id);
  if (!segment) return segment.error().code == ErrorCode::not_found ? segments_->damage_behind(0).value_or(unknown) : segment.error();
  auto record = (*segment)->record(id);
  if (!record) return record.error();
  if (!*record) return segments_->damage_behind((*segment)->header().number).value_or(unknown);
  if ((*record)->kind != RecordKind::message) return unknown;
  std::optional<MessageRecord> message;
  if ((*record)->is_erased) return Error{ErrorCode::not_found, fmt::format("entry {} was erased", id)};
  if ((*record)->damage.empty()) message = decode_message((*record)->encoded);
  if (!message) return Error{ErrorCode::corrupt, fmt::format("entry {} is damaged; run: holdfast journal verify", id)};
  return Entry{id, (*segment)->header().number, std::move(*message), std::move((*record)->content), false};
}

Result<std::optional<std::string>> Journal::frame(const Entry& entry, std::uint32_t index) {
  auto segment = segments_->get(entry.segment);
  if (!segment) return segment.error();
  return (*segment)->frame(entry.message, entry.content, index);
}

Result<std::optional<StateRecord>> Journal::state_of(const std::string& route) {
  auto place = catalog_->state_of(route);
  if (!place) return place.error();
  std::optional<StateRecord> none;
  if (!*place) return none;
  auto segment = segments_->get((*place)->segment);
  if (!segment) return segment.error();
  auto record = (*segment)->record((*place)->id);
  if (!record) return record.error();
  if (!*record || !(*record)->damage.empty()) return none;
  return decode_state((*record)->encoded);
}

std::uint64_t Journal::bytes() const {
  std::uint64_t sum = 0;
  std::error_code failure;
  for (const auto& file : std::filesystem::directory_iterator(segment_folder(path_), failure))
    if (std::uint64_t size = file.file_size(failure); !failure && file.path().extension() == ".lmdb") sum += size;
  return sum;
}

Result<std::uint64_t> rebuild_catalog(const std::string& path, const MasterKeySource& key, const std::function<void(double)>& on_progress,
                                      const std::function<void(const Error&)>& on_damage) {
  if (auto there = list_segments(path); !there) return there.error();
  auto keys = KeyRing::open(path, key);
  if (!keys) return keys.error();
  // Without a daemon the file may go, whatever state it is in. With one, its content is replaced in one transaction.
  auto lock = lock_file(daemon_lock_path(path), {true, [](const std::string&) {}});
  if (!lock && lock.error().code != ErrorCode::busy) return lock.error();
  if (lock) {
    std::error_code ignored;
    std::filesystem::remove(Catalog::path_in(path), ignored);
    std::filesystem::remove(Catalog::path_in(path) + "-lock", ignored);
  }
  auto catalog = Catalog::open(path, keys->base_key(), Environment::Mode::write);
  if (!catalog) return catalog.error();
  std::size_t done = 0;
  Status rebuilt = (*catalog)->rebuild([&](const Catalog::Sink& sink) -> Status {
    // Only now, when nobody else writes the catalog: a daemon adds what comes after this to the new one.
    auto numbers = list_segments(path);
    if (!numbers) return numbers.error();
    for (std::uint32_t number : *numbers) {
      auto segment = Segment::open(path, number, *keys, Environment::Mode::read);
      Status fed = segment ? feed(**segment, 0, sink) : segment.error();
      bool is_pruned = !fed && fed.error().code == ErrorCode::not_found;
      if (!fed && !is_pruned && !is_damage(fed.error())) return fed;
      if (!fed && !is_pruned) on_damage(fed.error());  // all else is indexed
      if (on_progress) on_progress(static_cast<double>(++done) / static_cast<double>(numbers->size()));
    }
    return {};
  });
  if (!rebuilt) return rebuilt.error();
  return (*catalog)->entries();
}

}  // namespace holdfast::journal
