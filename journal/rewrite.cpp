#include "journal/rewrite.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>

#include "journal/files.h"
#include "journal/manifest.h"

namespace holdfast::journal {
namespace {

/// Committed so often that no transaction gets large, and, when gentle, no sync takes long.
constexpr std::size_t batch_size = 16 << 20, gentle_batch_size = 1 << 20;
/// Content of more than a frame has pages of its own; what is smaller shares them with others.
constexpr std::size_t small_content = frame_plain_size;
/// What a dictionary is made from.
constexpr std::size_t all_samples_size = 4 << 20, most_sample_size = 8 * 1024;
constexpr std::uint64_t rewrite_slack = 64ULL << 20;
/// The header ends in it.
constexpr std::size_t sealed_key_size = std::tuple_size_v<Key> + seal_overhead;

Error damaged(const Segment& segment, RecordId record, std::string_view what) {
  return {ErrorCode::corrupt, fmt::format("{}: record {}: {}; nothing was changed. Run: holdfast journal verify", segment.path(), record, what)};
}

/// A dictionary out of what is to be kept: nothing of what is erased may live on in it.
Result<std::string> learn(const Segment& from, const RewriteOptions& options, Pace& pace) {
  std::vector<std::string> samples;
  std::uint64_t one_in = 1 + from.environment().used_bytes() / all_samples_size, count = 0;
  Status problem;
  Status walked = from.each_record(0, [&](Segment::StoredRecord& record) {
    pace.step();
    bool is_sample = count++ % one_in == 0 && !record.is_erased && record.damage.empty() && options.erased.count(record.id) == 0;
    if (!is_sample) return options.goes_on();
    samples.push_back(record.encoded);
    std::optional<MessageRecord> message;
    if (record.kind == RecordKind::message) message = decode_message(record.encoded);
    if (!message) return true;
    auto beginning = from.frame(*message, record.content, 0);
    if (!beginning)
      problem = beginning.error();
    else if (*beginning)
      samples.push_back((*beginning)->substr(0, most_sample_size));
    return static_cast<bool>(problem);
  });
  if (!problem) return problem.error();
  if (!walked) return walked.error();
  return train_dictionary(samples, one_in);
}

/// The room on the leaf page that LMDB is filling. Appended to, it begins a new page when something does not fit, so what can be cut
/// is cut to fit. (Sizes as in LMDB 0.9: pages of 4096 bytes with a header of 16, a node's header of 8, an index of 2 bytes to it.)
class LeafPage {
 public:
  /// Two of these, with their keys, fill a page exactly.
  static constexpr std::size_t half = 2018;

  void add(std::size_t key_size, std::size_t value_size) {
    bool is_apart = node + key_size + value_size > largest_node;  // only the number of the value's page stands here
    std::size_t taken = even(node + key_size + (is_apart ? sizeof(std::size_t) : value_size) + index);
    if (taken > room_) room_ = whole;
    room_ -= taken;
  }

  /// The best size for the first of some pieces, of which the others are halves.
  std::size_t first_piece() const {
    constexpr std::size_t overhead = node + piece_key_size + index, least = 64;
    if (room_ < overhead + least) return half;
    std::size_t room = room_ - overhead;
    return room >= half + overhead + least ? room - half - overhead : std::min(room, half);
  }

 private:
  static constexpr std::size_t whole = 4080, node = 8, index = 2, largest_node = 2038, piece_key_size = 12;
  static std::size_t even(std::size_t size) { return (size + 1) & ~std::size_t{1}; }
  std::size_t room_ = whole;
};

/// The new file, while it is written.
class Copy {
 public:
  Copy(const Segment& from, const RewriteOptions& options, Pace& pace, Environment& to, std::string dictionary)
      : from_(from), options_(options), pace_(pace), to_(to), dictionary_(std::move(dictionary)), compressor_(dictionary_) {}

  Status run(const std::string& header) {
    if (Status begun = begin(); !begun) return begun;
    if (Status stored = put(cell_key(0, false), header); !stored) return stored;
    std::string sealed;
    if (!dictionary_.empty()) seal(key, dictionary_, dictionary_label, sealed);
    if (Status stored = put_pieces(0, sealed, cell_size); !stored) return stored;
    Status problem;
    Status walked = from_.each_record(0, [&](Segment::StoredRecord& record) {
      problem = copy(record);
      if (problem && written_ > (options_.is_gentle ? gentle_batch_size : batch_size)) problem = begin();
      return static_cast<bool>(problem);
    });
    if (!problem) return problem;
    if (!walked) return walked;
    return transaction_->commit();
  }

  Key key = random_key();

 private:
  /// Ends the batch before, if any.
  Status begin() {
    if (transaction_)
      if (Status committed = transaction_->commit(); !committed) return committed;
    transaction_.reset();
    pace_.step();
    if (!options_.goes_on()) return Error{ErrorCode::busy, fmt::format("{}: rewriting was put off", from_.path())};
    auto begun = Transaction::begin(to_, Environment::Mode::write);
    if (!begun) return begun.error();
    transaction_.emplace(std::move(*begun));
    written_ = 0;
    return {};
  }

  Status copy(const Segment::StoredRecord& record) {
    if (!record.damage.empty()) return damaged(from_, record.id, record.damage);
    RecordCell cell;
    cell.kind = record.kind;
    cell.commitment = record.commitment;
    cell.is_compacted = true;
    std::string sealed;
    bool is_kept = !record.is_erased && options_.erased.count(record.id) == 0;
    if (is_kept && record.kind == RecordKind::message)
      if (Status copied = copy_content(record, cell.content); !copied) return copied;
    if (is_kept) sealed = seal_again(key, record.kind, record.salt, record.encoded, compressor_);
    cell.sealed = sealed;
    return put(cell_key(record.id, true), encode_record_cell(cell));
  }

  /// The frames, compressed, in pieces.
  Status copy_content(const Segment::StoredRecord& record, ContentPlace& place) {
    std::optional<MessageRecord> message = decode_message(record.encoded);
    if (!message) return damaged(from_, record.id, "it cannot be decoded");
    std::string stored;
    std::uint32_t next_piece = 0;
    bool is_small = message->size <= small_content;
    place.first_piece = static_cast<std::uint32_t>(is_small ? page_.first_piece() : cell_size);
    place.piece_size = is_small ? LeafPage::half : cell_size;
    for (std::uint32_t index = 0;; ++index) {
      auto plain = from_.frame(*message, record.content, index);
      if (!plain) return plain.error();
      if (!*plain) break;
      bool is_last = static_cast<std::uint64_t>(index) * frame_plain_size + (*plain)->size() == message->size;
      std::string sealed = seal_packed_frame(key, message->content_id, index, is_last, **plain, compressor_);
      place.frames.push_back(static_cast<std::uint32_t>(sealed.size()));
      stored += sealed;
      if (is_small) {
        std::string_view first = std::string_view(stored).substr(0, place.first_piece);
        if (Status done = put_pieces(record.id, first, first.size(), &next_piece); !done) return done;
        stored.erase(0, first.size());
      }
      std::size_t whole = stored.size() / place.piece_size * place.piece_size;
      if (Status done = put_pieces(record.id, std::string_view(stored).substr(0, whole), place.piece_size, &next_piece); !done) return done;
      stored.erase(0, whole);
    }
    return put_pieces(record.id, stored, place.piece_size, &next_piece);
  }

  Status put_pieces(RecordId record, std::string_view bytes, std::size_t piece_size, std::uint32_t* next = nullptr) {
    std::uint32_t first = 0;
    std::uint32_t& index = next ? *next : first;
    for (; !bytes.empty(); bytes.remove_prefix(std::min(bytes.size(), piece_size)))
      if (Status stored = put(piece_key(record, index++), bytes.substr(0, piece_size)); !stored) return stored;
    return {};
  }

  /// Keys ascend: content stands before its record, records in their order.
  Status put(const std::string& cell, std::string_view value) {
    written_ += value.size();
    page_.add(cell.size(), value.size());
    return transaction_->put(cell, value, MDB_APPEND);
  }

  const Segment& from_;
  const RewriteOptions& options_;
  Pace& pace_;
  Environment& to_;
  const std::string dictionary_;
  Compressor compressor_;
  std::optional<Transaction> transaction_;
  std::size_t written_ = 0;
  LeafPage page_;
};

/// Overwrites each place where the sealed key stands in the file, which others may still be reading: without
/// it the content is lost.
Status destroy_key(int file, const std::string& path, const std::string& sealed_key) {
  struct stat info {};
  if (::fstat(file, &info) != 0) return lmdb_error(errno, path);
  auto size = static_cast<std::size_t>(info.st_size);
  if (size == 0) return {};
  void* map = ::mmap(nullptr, size, PROT_READ, MAP_SHARED, file, 0);
  if (map == MAP_FAILED) return lmdb_error(errno, path);
  std::string zeros(sealed_key.size(), '\0');
  const char* begin = static_cast<const char*>(map);
  bool is_gone = true;
  for (const char* at = begin; is_gone;) {
    at = static_cast<const char*>(::memmem(at, size - static_cast<std::size_t>(at - begin), sealed_key.data(), sealed_key.size()));
    if (!at) break;
    is_gone = write_all_at(file, zeros, static_cast<std::uint64_t>(at - begin));
    at += sealed_key.size();
  }
  int reason = errno;
  ::munmap(map, size);
  if (!is_gone) return lmdb_error(reason, path);
  if (::fsync(file) != 0) return lmdb_error(errno, path);
  return {};
}

/// Where the key stands in a damaged file nobody can say: all of it is overwritten.
Status overwrite(int file, const std::string& path) {
  struct stat there;
  if (::fstat(file, &there) != 0) return lmdb_error(errno, path);
  const std::string zeros(1 << 20, '\0');
  const auto size = static_cast<std::uint64_t>(there.st_size);
  for (std::uint64_t at = 0; at < size; at += zeros.size())
    if (!write_all_at(file, std::string_view(zeros).substr(0, size - at), at)) return lmdb_error(errno, path);
  if (::fsync(file) != 0) return lmdb_error(errno, path);
  return {};
}

std::string old_path(const std::string& path) { return path + ".old"; }

/// The old file of a segment, if there is one: its key, then the file. While the segment itself still is that
/// file, only the name goes.
Status destroy_leftover(const std::string& path) {
  std::string old = old_path(path);
  FileDescriptor file(::open(old.c_str(), O_RDWR | O_CLOEXEC));
  if (!file) return {};
  std::error_code ignored;
  if (!std::filesystem::equivalent(path, old, ignored)) {
    std::string sealed_key;
    if (auto environment = Environment::open(old, Environment::Mode::sealed, 0))
      if (auto transaction = Transaction::begin(*environment, Environment::Mode::sealed))
        if (auto header = transaction->get(cell_key(0, false)); header && *header && (*header)->size() > sealed_key_size)
          sealed_key = (*header)->substr((*header)->size() - sealed_key_size);
    Status destroyed = sealed_key.empty() ? overwrite(file.get(), old) : destroy_key(file.get(), old, sealed_key);
    if (!destroyed) return destroyed;
  }
  if (::unlink(old.c_str()) != 0) return lmdb_error(errno, old);
  return sync_folder_of(path);
}

}  // namespace

Status rewrite_segment(const std::string& journal, const Segment& segment, const KeyRing& keys, const SigningKey& key,
                       const RewriteOptions& options) {
  std::uint32_t number = segment.header().number;
  std::string path = segment_path(journal, number), draft = path + ".rewritten";
  std::error_code ignored;
  bool is_followed = std::filesystem::exists(segment_path(journal, number + 1), ignored);
  if (!is_followed) return Error{ErrorCode::busy, fmt::format("{}: it is still written, so it must not be rewritten", path)};
  auto clean = [&] {
    std::filesystem::remove(draft, ignored);
    std::filesystem::remove(draft + "-lock", ignored);
  };
  clean();
  if (Status destroyed = destroy_leftover(path); !destroyed) return destroyed;
  Pace pace = options.is_gentle ? Pace([&] { return !options.goes_on(); }) : Pace();
  Status written = [&]() -> Status {
    auto to = Environment::open(draft, Environment::Mode::write, segment.environment().used_bytes() * 2 + rewrite_slack);
    if (!to) return to.error();
    auto dictionary = learn(segment, options, pace);
    if (!dictionary) return dictionary.error();
    Copy copy(segment, options, pace, *to, std::move(*dictionary));
    return copy.run(segment.header_for(copy.key, keys));
  }();
  if (written) written = write_next_manifest(journal, number, draft, key, pace);
  // The old file keeps a name until its key is destroyed: a crash between the two is made good by the next
  // run.
  std::string old = old_path(path);
  if (written && ::link(path.c_str(), old.c_str()) != 0 && errno != EEXIST) written = lmdb_error(errno, old);
  if (written && std::rename(draft.c_str(), path.c_str()) != 0) written = lmdb_error(errno, path);
  clean();
  if (!written) return written;
  if (Status synced = sync_folder_of(path); !synced) return synced;
  if (Status taken = take_next_manifest(journal, number); !taken) return taken;
  return destroy_leftover(path);
}

Status remove_segment(const std::string& journal, std::uint32_t number) {
  std::string path = segment_path(journal, number);
  std::error_code ignored;
  if (Status destroyed = destroy_leftover(path); !destroyed) return destroyed;
  if (std::rename(path.c_str(), old_path(path).c_str()) != 0) return lmdb_error(errno, path);
  if (Status synced = sync_folder_of(path); !synced) return synced;
  std::filesystem::remove(path + "-lock", ignored);
  std::filesystem::remove(manifest_path(journal, number), ignored);
  return destroy_leftover(path);
}

Status destroy_leftovers(const std::string& journal) {
  std::error_code failure;
  std::vector<std::string> names;
  for (const auto& file : std::filesystem::directory_iterator(segment_folder(journal), failure)) names.push_back(file.path().string());
  for (const std::string& name : names) {
    bool is_leftover = name.ends_with(".lmdb.old");
    if (!is_leftover) continue;
    if (Status destroyed = destroy_leftover(name.substr(0, name.size() - 4)); !destroyed) return destroyed;
  }
  return {};
}

}  // namespace holdfast::journal
