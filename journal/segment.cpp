#include "journal/segment.h"

#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <charconv>
#include <cstdio>
#include <filesystem>
#include <numeric>

#include "journal/bytes.h"
#include "journal/files.h"

namespace holdfast::journal {
namespace {

constexpr std::string_view segment_magic = "HOLDFAST";
constexpr std::uint32_t format_version = 1;
constexpr std::string_view header_key{"\0\0\0\0\0\0\0\0", 8};
/// A read transaction pins LMDB's pages: a new one is taken after so many records. Who walks may want the first only: few come first.
constexpr int fewest_at_once = 16, most_at_once = 512, growth = 4;

std::string key_associated(std::uint32_t number) {
  ByteWriter out;
  out.raw("segment key");
  out.integer(number);
  return out.take();
}

std::string encode_header(const SegmentHeader& header) {
  ByteWriter out;
  out.raw(segment_magic);
  out.integer(format_version);
  out.integer(header.number);
  out.integer(header.first_cell);
  out.integer(header.created_us);
  out.raw(view(header.previous_link));
  out.integer(static_cast<std::uint8_t>(header.follows_damage));
  out.integer(static_cast<std::uint8_t>(header.is_compacted));
  out.string(header.sealed_key);
  return out.take();
}

std::optional<SegmentHeader> decode_header(std::string_view bytes) {
  ByteReader in(bytes);
  SegmentHeader header;
  if (in.raw(segment_magic.size()) != segment_magic || in.integer<std::uint32_t>() != format_version) return std::nullopt;
  header.number = in.integer<std::uint32_t>();
  header.first_cell = in.integer<CellNumber>();
  header.created_us = in.integer<std::int64_t>();
  header.previous_link = in.array<Hash>();
  header.follows_damage = in.integer<std::uint8_t>() != 0;
  header.is_compacted = in.integer<std::uint8_t>() != 0;
  header.sealed_key = in.string();
  if (!in.ok() || !in.at_end()) return std::nullopt;
  return header;
}

bool is_record_key(std::string_view key) {
  std::optional<CellKey> cell = parse_cell_key(key);
  return cell && cell->is_record;
}

}  // namespace

std::string segment_folder(const std::string& journal) { return journal + "/segments"; }

std::string segment_path(const std::string& journal, std::uint32_t number) { return fmt::format("{}/{:010}.lmdb", segment_folder(journal), number); }

std::string daemon_lock_path(const std::string& journal) { return journal + "/daemon.lock"; }

Result<std::vector<std::uint32_t>> list_segments(const std::string& journal) {
  std::vector<std::uint32_t> numbers;
  std::error_code failure;
  std::filesystem::directory_iterator folder(segment_folder(journal), failure);
  if (failure == std::errc::no_such_file_or_directory) return Error{ErrorCode::not_found, fmt::format("{}: there is no journal here", journal)};
  if (failure) return Error{ErrorCode::permission, fmt::format("{}: cannot read the folder: {}", segment_folder(journal), failure.message())};
  for (const auto& file : folder) {
    std::string name = file.path().filename().string();
    std::uint32_t number = 0;
    auto [end, problem] = std::from_chars(name.data(), name.data() + name.size(), number);
    if (problem == std::errc() && std::string_view(end) == ".lmdb") numbers.push_back(number);
  }
  std::sort(numbers.begin(), numbers.end());
  return numbers;
}

std::string Segment::header_for(const Key& key, const KeyRing& keys) const {
  SegmentHeader header = header_;
  header.is_compacted = true;
  header.sealed_key = keys.wrap(key, key_associated(header.number));
  return encode_header(header);
}

Result<std::unique_ptr<Segment>> Segment::create(const std::string& journal, SegmentHeader header, const KeyRing& keys, std::uint64_t map_size) {
  std::string path = segment_path(journal, header.number);
  std::string draft = path + ".new";
  std::error_code ignored;
  std::filesystem::remove(draft, ignored);
  std::filesystem::remove(draft + "-lock", ignored);
  Key key = random_key();
  header.sealed_key = keys.wrap(key, key_associated(header.number));
  auto written = [&]() -> Status {
    Result<Environment> environment = Environment::open(draft, Environment::Mode::write, map_size);
    if (!environment) return environment.error();
    Result<Transaction> transaction = Transaction::begin(*environment, Environment::Mode::write);
    if (!transaction) return transaction.error();
    if (Status put = transaction->put(header_key, encode_header(header)); !put) return put;
    return transaction->commit();
  }();
  std::filesystem::remove(draft + "-lock", ignored);
  if (written && std::rename(draft.c_str(), path.c_str()) != 0) written = lmdb_error(errno, path);
  if (written) written = sync_folder_of(path);
  Result<std::unique_ptr<Segment>> created = Error{ErrorCode::io, path};
  if (written) created = open(journal, header.number, keys, Environment::Mode::write, map_size);
  if (written && created) return created;
  // The segment before is written on: with another one behind it readers would take it for sealed.
  for (const std::string& file : {draft, path}) std::filesystem::remove(file, ignored);
  return written ? created.error() : written.error();
}

Result<std::unique_ptr<Segment>> Segment::open(const std::string& journal, std::uint32_t number, const KeyRing& keys, Environment::Mode mode,
                                               std::uint64_t map_size) {
  // An erasure puts another file in the segment's place and destroys the key in the old one, which may have been opened just before.
  std::string path = segment_path(journal, number);
  for (;;) {
    ino_t file = file_number(path);
    auto segment = open_file(journal, number, &keys, mode, map_size);
    bool is_replaced = !segment && segment.error().code == ErrorCode::wrong_key && file_number(path) != file;
    if (!is_replaced) return segment;
  }
}

Result<std::unique_ptr<Segment>> Segment::open_without_key(const std::string& journal, std::uint32_t number) {
  return open_file(journal, number, nullptr, Environment::Mode::read, 0);
}

Result<std::unique_ptr<Segment>> Segment::open_file(const std::string& journal, std::uint32_t number, const KeyRing* keys, Environment::Mode mode,
                                                    std::uint64_t map_size) {
  std::string path = segment_path(journal, number);
  // LMDB would make a missing file anew, and take a torn one for an empty one.
  std::error_code failure;
  std::uintmax_t size = std::filesystem::file_size(path, failure);
  if (failure) return lmdb_error(failure.value(), path);
  if (size < 2 * 4096) return Error{ErrorCode::corrupt, fmt::format("{}: the file is damaged (only {} bytes long)", path, size)};
  if (mode == Environment::Mode::read && std::filesystem::exists(segment_path(journal, number + 1), failure)) mode = Environment::Mode::sealed;
  Result<Environment> environment = Environment::open(path, mode, map_size);
  if (!environment) return environment.error();
  std::uint64_t used = environment->used_bytes();
  Result<std::uint64_t> there = environment->file_size();
  if (!there) return there.error();
  if (used > *there) return Error{ErrorCode::corrupt, fmt::format("{}: the file is cut short: {} bytes instead of {}", path, *there, used)};
  std::unique_ptr<Segment> segment(new Segment(std::move(*environment)));
  if (Status read = segment->read_header(keys); !read) return read.error();
  if (segment->header_.number != number)
    return Error{ErrorCode::corrupt, fmt::format("{}: the file says that it is segment {}", path, segment->header_.number)};
  return segment;
}

Status Segment::read_header(const KeyRing* keys) {
  Result<Transaction> transaction = Transaction::begin(environment_, Environment::Mode::read);
  if (!transaction) return transaction.error();
  Result<std::optional<std::string_view>> value = transaction->get(header_key);
  if (!value) return value.error();
  std::optional<SegmentHeader> header;
  if (*value) header = decode_header(**value);
  if (!header) return Error{ErrorCode::corrupt, fmt::format("{}: the segment's header is missing or damaged", path())};
  header_ = std::move(*header);
  if (!keys) return {};
  std::optional<Key> key = keys->unwrap(header_.sealed_key, key_associated(header_.number));
  if (!key)
    return Error{ErrorCode::wrong_key, fmt::format("{}: no key of the key ring opens this segment; it is another journal's, or the key ring is older "
                                                   "than it: restore both from the same backup",
                                                   path())};
  key_ = *key;
  has_key_ = true;
  return {};
}

Result<CellNumber> Segment::next_cell() const {
  Result<Transaction> transaction = Transaction::begin(environment_, Environment::Mode::read);
  if (!transaction) return transaction.error();
  Result<Cursor> cursor = Cursor::open(*transaction);
  if (!cursor) return cursor.error();
  auto item = cursor->last();
  if (!item) return item.error();
  std::optional<CellKey> key = *item ? parse_cell_key((*item)->key) : std::nullopt;
  if (!key) return Error{ErrorCode::corrupt, fmt::format("{}: a cell has a damaged key", path())};
  return std::max(header_.first_cell, key->cell + 1);
}

Result<Segment::Tail> Segment::tail() const {
  Result<Transaction> transaction = Transaction::begin(environment_, Environment::Mode::read);
  if (!transaction) return transaction.error();
  Result<Cursor> cursor = Cursor::open(*transaction, &is_record_key);
  if (!cursor) return cursor.error();
  Tail tail{header_.first_cell, header_.previous_link};
  bool is_newest = true;
  for (auto item = cursor->last();; item = cursor->previous()) {
    if (!item) return item.error();
    if (!*item) return tail;
    std::optional<CellKey> key = parse_cell_key((*item)->key);
    if (!key) return Error{ErrorCode::corrupt, fmt::format("{}: a cell has a damaged key", path())};
    if (key->cell == 0 && !key->is_record) return tail;  // the header: there are no records
    if (is_newest) tail.next_cell = key->cell + 1;
    is_newest = false;
    if (!key->is_record) continue;
    std::optional<RecordCell> record = decode_record_cell((*item)->value);
    if (!record) return Error{ErrorCode::corrupt, fmt::format("{}: record {} is damaged", path(), key->cell)};
    tail.link = record->link;
    return tail;
  }
}

Segment::StoredRecord Segment::open_cell(CellNumber cell, std::string_view value) const {
  StoredRecord stored;
  stored.id = cell;
  std::optional<RecordCell> record = decode_record_cell(value);
  if (!record) {
    stored.damage = "the record's cell is malformed";
    return stored;
  }
  stored.kind = record->kind;
  stored.commitment = record->commitment;
  stored.link = record->link;
  stored.content = std::move(record->content);
  stored.content.record = cell;
  stored.is_erased = record->sealed.empty();
  if (stored.is_erased || !has_key_) return stored;
  std::optional<OpenedRecord> opened = open_record(key_, *record, decompressor());
  if (opened) {
    stored.salt = std::move(opened->salt);
    stored.encoded = std::move(opened->encoded);
  } else {
    stored.damage = "the record's authentication tag or commitment does not fit";
  }
  return stored;
}

Result<std::optional<Segment::StoredRecord>> Segment::record(RecordId id) const {
  Result<Transaction> transaction = Transaction::begin(environment_, Environment::Mode::read);
  if (!transaction) return transaction.error();
  Result<std::optional<std::string_view>> value = transaction->get(cell_key(id, true));
  if (!value) return value.error();
  if (!*value) return std::optional<StoredRecord>();
  return std::optional(open_cell(id, **value));
}

Status Segment::each_record(RecordId from, const std::function<bool(StoredRecord&)>& visit) const { return walk(from, false, std::nullopt, visit); }

Status Segment::each_record_of(RecordKind kind, RecordId from, const std::function<bool(StoredRecord&)>& visit) const {
  return walk(from, false, kind, visit);
}

Status Segment::each_record_backwards(RecordId from, const std::function<bool(StoredRecord&)>& visit) const {
  return walk(from, true, std::nullopt, visit);
}

/// What one short transaction reads of a walk.
Result<Segment::Batch> Segment::read_batch(RecordId from, bool backwards, std::optional<RecordKind> kind, int most) const {
  Result<Transaction> transaction = Transaction::begin(environment_, Environment::Mode::read);
  if (!transaction) return transaction.error();
  Result<Cursor> cursor = Cursor::open(*transaction, &is_record_key);
  if (!cursor) return cursor.error();
  Batch batch;
  auto item = cursor->at_or_after(cell_key(from, backwards));
  if (backwards && item && !*item) item = cursor->last();
  while (item && *item && batch.seen < most) {
    std::optional<CellKey> key = parse_cell_key((*item)->key);
    if (!key) return Error{ErrorCode::corrupt, fmt::format("{}: a cell has a damaged key", path())};
    if (key->is_record && (backwards ? key->cell <= from : key->cell >= from)) {
      ++batch.seen;
      batch.last = key->cell;
      bool is_wanted = !kind || kind_of_cell((*item)->value) == kind;
      if (is_wanted) batch.records.push_back(open_cell(key->cell, (*item)->value));
    }
    item = backwards ? cursor->previous() : cursor->next();
  }
  if (!item) return item.error();
  return batch;
}

Status Segment::walk(RecordId from, bool backwards, std::optional<RecordKind> kind, const std::function<bool(StoredRecord&)>& visit) const {
  for (int most = fewest_at_once;; most = std::min(most * growth, most_at_once)) {
    Result<Batch> batch = read_batch(from, backwards, kind, most);
    if (!batch) return batch.error();
    for (StoredRecord& record : batch->records)
      if (!visit(record)) return {};
    bool is_end = batch->seen < most || (backwards && batch->last == 0);
    if (is_end) return {};
    from = backwards ? batch->last - 1 : batch->last + 1;
  }
}

Result<std::optional<std::string>> Segment::frame(const MessageRecord& message, const ContentPlace& place, std::uint32_t index) const {
  std::uint64_t start = static_cast<std::uint64_t>(index) * frame_plain_size;
  if (start > message.size || (start == message.size && index > 0)) return std::optional<std::string>();
  auto plain_size = static_cast<std::size_t>(std::min<std::uint64_t>(message.size - start, frame_plain_size));
  bool is_last = message.size - start == plain_size;
  bool is_packed = place.piece_size > 0;
  Result<std::string> sealed = is_packed ? pieces(place, index) : cells(place, index, plain_size);
  if (!sealed) return sealed.error();
  std::optional<std::string> plain = is_packed ? open_packed_frame(key_, message.content_id, index, is_last, *sealed, decompressor())
                                               : open_frame(key_, message.content_id, index, is_last, *sealed);
  if (!plain || plain->size() != plain_size)
    return Error{ErrorCode::corrupt, fmt::format("{}: the authentication tag of content frame {} does not fit", path(), index)};
  return plain;
}

/// A frame's stored bytes out of content cells.
Result<std::string> Segment::cells(const ContentPlace& place, std::uint32_t index, std::size_t plain_size) const {
  // All frames before this one are full.
  std::uint64_t skipped = static_cast<std::uint64_t>(index) * cells_of_frame(frame_plain_size);
  std::size_t wanted = cells_of_frame(plain_size);
  std::string sealed;
  Result<Transaction> transaction = Transaction::begin(environment_, Environment::Mode::read);
  if (!transaction) return transaction.error();
  for (const Extent& extent : place.extents) {
    std::uint64_t passed = std::min<std::uint64_t>(skipped, extent.count);
    skipped -= passed;
    for (std::uint64_t i = passed; i < extent.count && wanted > 0; ++i, --wanted) {
      Result<std::optional<std::string_view>> value = transaction->get(cell_key(extent.first + i, false));
      if (!value) return value.error();
      if (!*value) return Error{ErrorCode::corrupt, fmt::format("{}: content cell {} is missing", path(), extent.first + i)};
      sealed += **value;
    }
  }
  if (wanted > 0) return Error{ErrorCode::corrupt, fmt::format("{}: content frame {} has no cells", path(), index)};
  return sealed;
}

/// A frame's stored bytes out of a compacted segment's pieces.
Result<std::string> Segment::pieces(const ContentPlace& place, std::uint32_t index) const {
  if (index >= place.frames.size())
    return Error{ErrorCode::corrupt, fmt::format("{}: content frame {} of record {} is missing", path(), index, place.record)};
  std::uint64_t start = std::accumulate(place.frames.begin(), place.frames.begin() + index, std::uint64_t{0});
  std::uint64_t end = start + place.frames[index];
  std::string sealed;
  Result<Transaction> transaction = Transaction::begin(environment_, Environment::Mode::read);
  if (!transaction) return transaction.error();
  for (std::uint64_t at = start; at < end;) {
    bool is_first = at < place.first_piece;
    std::uint64_t behind = is_first ? at : at - place.first_piece;
    auto piece = static_cast<std::uint32_t>(is_first ? 0 : 1 + behind / place.piece_size);
    Result<std::optional<std::string_view>> value = transaction->get(piece_key(place.record, piece));
    if (!value) return value.error();
    std::size_t within = is_first ? at : behind % place.piece_size;
    if (!*value || (*value)->size() <= within)
      return Error{ErrorCode::corrupt, fmt::format("{}: piece {} of record {} is missing", path(), piece, place.record)};
    std::string_view part = (*value)->substr(within, end - at);
    sealed += part;
    at += part.size();
  }
  return sealed;
}

/// Reads the dictionary when it is needed for the first time. A damaged one is none: what was compressed with it then counts as damaged.
const Decompressor& Segment::decompressor() const {
  std::call_once(needs_decompressor_, [this] {
    std::string sealed;
    if (header_.is_compacted)
      if (auto transaction = Transaction::begin(environment_, Environment::Mode::read))
        for (std::uint32_t piece = 0;; ++piece) {
          auto value = transaction->get(piece_key(0, piece));
          if (!value || !*value) break;
          sealed += **value;
        }
    decompressor_ = std::make_unique<Decompressor>(open_sealed(key_, sealed, dictionary_label).value_or(""));
  });
  return *decompressor_;
}

Status Segment::content(const MessageRecord& message, const ContentPlace& place, const std::function<bool(std::string_view)>& sink) const {
  for (std::uint32_t index = 0;; ++index) {
    auto plain = frame(message, place, index);
    if (!plain) return plain.error();
    if (!*plain || !sink(**plain)) return {};
  }
}

Status append_record(Transaction& transaction, Segment::Tail& tail, const SealedRecord& record, ContentPlace content) {
  RecordCell cell;
  cell.kind = record.kind;
  cell.commitment = record.commitment;
  cell.link = next_link(tail.link, record.commitment);
  cell.content = std::move(content);
  cell.sealed = record.sealed;
  if (Status put = transaction.put(cell_key(tail.next_cell, true), encode_record_cell(cell), MDB_APPEND); !put) return put;
  tail = {tail.next_cell + 1, cell.link};
  return {};
}

}  // namespace holdfast::journal
