#include "journal/rewrite.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <cerrno>
#include <cstring>
#include <filesystem>

#include "journal/files.h"
#include "journal/manifest.h"

namespace holdfast::journal {
namespace {

/// Committed so often that no transaction gets large.
constexpr std::size_t batch_size = 16 * 1024 * 1024;
constexpr std::uint64_t map_slack = 64ULL << 20;
/// The header ends in it.
constexpr std::size_t sealed_key_size = std::tuple_size_v<Key> + seal_overhead;

/// The new file, while it is written.
class Copy {
 public:
  Copy(const Segment& from, const std::set<RecordId>& erased, Environment& to)
      : from_(from), erased_(erased), to_(to) {}

  Status run(const std::string& header) {
    if (Status begun = begin(); !begun) return begun;
    if (Status put = transaction_->put(std::string_view("\0\0\0\0\0\0\0\0", 8), header); !put) return put;
    Status problem;
    Status walked = from_.each_record(0, [&](Segment::StoredRecord& record) {
      problem = copy(record);
      if (problem && written_ > batch_size) problem = begin();
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
    auto begun = Transaction::begin(to_, Environment::Mode::write);
    if (!begun) return begun.error();
    transaction_.emplace(std::move(*begun));
    written_ = 0;
    return {};
  }

  Status copy(const Segment::StoredRecord& record) {
    if (!record.damage.empty())
      return Error{ErrorCode::corrupt,
                   fmt::format("{}: record {}: {}; nothing was changed. Run: holdfast journal verify",
                               from_.path(), record.id, record.damage)};
    RecordCell cell;
    cell.kind = record.kind;
    cell.commitment = record.commitment;
    cell.link = record.link;
    std::string sealed;
    bool is_kept = !record.is_erased && erased_.count(record.id) == 0;
    if (is_kept && record.kind == RecordKind::message) {
      cell.extents = record.extents;
      if (Status copied = copy_content(record); !copied) return copied;
    }
    if (is_kept) sealed = seal_again(key, record.kind, record.salt, record.encoded);
    cell.sealed = sealed;
    return put(cell_key(record.id, true), encode_record_cell(cell));
  }

  /// The frames, into cells of the same numbers.
  Status copy_content(const Segment::StoredRecord& record) {
    std::optional<MessageRecord> message = decode_message(record.encoded);
    if (!message)
      return Error{ErrorCode::corrupt, fmt::format("{}: record {} cannot be decoded; nothing was changed",
                                                   from_.path(), record.id)};
    std::size_t extent = 0;
    std::uint32_t within = 0;
    for (std::uint32_t index = 0;; ++index) {
      auto plain = from_.frame(*message, record.extents, index);
      if (!plain) return plain.error();
      if (!*plain) return {};
      bool is_last = static_cast<std::uint64_t>(index) * frame_plain_size + (*plain)->size() == message->size;
      std::string sealed = seal_frame(key, message->content_id, index, is_last, **plain);
      for (std::string_view left = sealed; !left.empty();
           left.remove_prefix(std::min(left.size(), cell_size))) {
        if (extent >= record.extents.size())
          return Error{ErrorCode::corrupt,
                       fmt::format("{}: record {} has too few cells", from_.path(), record.id)};
        if (Status stored =
                put(cell_key(record.extents[extent].first + within, false), left.substr(0, cell_size));
            !stored)
          return stored;
        if (++within == record.extents[extent].count) {
          ++extent;
          within = 0;
        }
      }
    }
  }

  Status put(const std::string& cell, std::string_view value) {
    written_ += value.size();
    // Content of several messages may be interleaved: most cells come in order, not all.
    bool is_next = cell > last_;
    if (is_next) last_ = cell;
    return transaction_->put(cell, value, is_next ? MDB_APPEND : 0);
  }

  const Segment& from_;
  const std::set<RecordId>& erased_;
  Environment& to_;
  std::optional<Transaction> transaction_;
  std::size_t written_ = 0;
  std::string last_;
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
    at = static_cast<const char*>(
        ::memmem(at, size - static_cast<std::size_t>(at - begin), sealed_key.data(), sealed_key.size()));
    if (!at) break;
    is_gone = ::pwrite(file, zeros.data(), zeros.size(), at - begin) == static_cast<ssize_t>(zeros.size());
    at += sealed_key.size();
  }
  int reason = errno;
  ::munmap(map, size);
  if (!is_gone) return lmdb_error(reason, path);
  if (::fsync(file) != 0) return lmdb_error(errno, path);
  return {};
}

std::string old_path(const std::string& path) {
  return path + ".old";
}

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
        if (auto header = transaction->get(std::string_view("\0\0\0\0\0\0\0\0", 8));
            header && *header && (*header)->size() > sealed_key_size)
          sealed_key = (*header)->substr((*header)->size() - sealed_key_size);
    if (!sealed_key.empty())
      if (Status destroyed = destroy_key(file.get(), old, sealed_key); !destroyed) return destroyed;
  }
  if (::unlink(old.c_str()) != 0) return lmdb_error(errno, old);
  return sync_folder_of(path);
}

}  // namespace

Status rewrite_segment(const std::string& journal, const Segment& segment, const std::set<RecordId>& erased,
                       const KeyRing& keys, const SigningKey& key) {
  std::uint32_t number = segment.header().number;
  std::string path = segment_path(journal, number), draft = path + ".rewritten";
  std::error_code ignored;
  auto clean = [&] {
    std::filesystem::remove(draft, ignored);
    std::filesystem::remove(draft + "-lock", ignored);
  };
  clean();
  if (Status destroyed = destroy_leftover(path); !destroyed) return destroyed;
  Status written = [&]() -> Status {
    auto to = Environment::open(draft, Environment::Mode::write,
                                segment.environment().used_bytes() * 2 + map_slack);
    if (!to) return to.error();
    Copy copy(segment, erased, *to);
    return copy.run(segment.header_for(copy.key, keys));
  }();
  if (written) written = write_next_manifest(journal, number, draft, key);
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
  for (const auto& file : std::filesystem::directory_iterator(segment_folder(journal), failure))
    names.push_back(file.path().string());
  for (const std::string& name : names) {
    bool is_leftover = name.ends_with(".lmdb.old");
    if (!is_leftover) continue;
    if (Status destroyed = destroy_leftover(name.substr(0, name.size() - 4)); !destroyed) return destroyed;
  }
  return {};
}

}  // namespace holdfast::journal
