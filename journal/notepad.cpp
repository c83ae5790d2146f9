#include "journal/notepad.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/magic.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <iterator>
#include <map>
#include <new>
#include <optional>
#include <set>

#include "journal/bytes.h"
#include "journal/files.h"
#include "journal/lmdb.h"

namespace holdfast::journal {
namespace {

constexpr const char* folder_in_memory = "/dev/shm";

// A sheet: which turn it is of, and the notes. A note: the size of what is sealed, the segment, the log's end then (next cell, link), the
// kind, the commitment, what is sealed; and zeros up to the next multiple of eight. A size of zero ends the sheet.
constexpr std::size_t sheet_size = 128 * 1024;
constexpr std::size_t heading_size = 8;
constexpr std::size_t note_overhead = 4 + 4 + 8 + sizeof(Hash) + 4 + sizeof(Hash);

// Behind the sheets, a slot for each entry that waits for its answer: its number, and its content's id. A number of zero: free.
constexpr std::size_t slots = 512;
constexpr std::size_t slot_size = sizeof(RecordId) + sizeof(ContentId);
constexpr std::size_t whole_size = 2 * sheet_size + slots * slot_size;

std::size_t room_of(std::size_t sealed_size) { return (note_overhead + sealed_size + 7) / 8 * 8; }

/// What stands behind a number counts from the moment the number is there: a note's size, the entry in a slot.
template <typename Number>
void set(char* place, Number number) {
  std::atomic_ref<Number>(*reinterpret_cast<Number*>(place)).store(number, std::memory_order_release);
}

RecordId entry_in(const char* slot) {
  RecordId entry;
  std::memcpy(&entry, slot, sizeof entry);
  return entry;
}

}  // namespace

std::string Notepad::path_of(const std::string& journal, const Key& base_key) {
  // Not the folder's name: it may be moved; and a copy of the journal has a notepad of its own.
  struct stat folder {};
  (void)::stat(journal.c_str(), &folder);
  Hash name = sha256(view(derive_key(base_key, "notepad")), fmt::format("{}:{}", folder.st_dev, folder.st_ino));
  return fmt::format("{}/holdfast-{}", folder_in_memory, to_hex(view(name).substr(0, 16)));
}

Result<std::unique_ptr<Notepad>> Notepad::open(const std::string& journal, const Key& base_key) {
  // On a disk, whoever writes on it could have to wait for the disk.
  struct statfs system {};
  if (::statfs(folder_in_memory, &system) != 0) return lmdb_error(errno, folder_in_memory);
  if (system.f_type != TMPFS_MAGIC) return Error{ErrorCode::io, fmt::format("{} is not in memory; mount a tmpfs there", folder_in_memory)};
  AsOwner as_owner(journal);
  std::string path = path_of(journal, base_key);
  // Everybody may make files there: what is not ours is not used.
  constexpr int flags = O_RDWR | O_NOFOLLOW | O_CLOEXEC;
  FileDescriptor file(::open(path.c_str(), flags));
  if (!file && errno == ENOENT) file = FileDescriptor(::open(path.c_str(), flags | O_CREAT | O_EXCL, 0600));
  if (!file) return lmdb_error(errno, path);
  struct stat folder {
  }, info{};
  if (::stat(journal.c_str(), &folder) != 0) return lmdb_error(errno, journal);
  if (::fstat(file.get(), &info) != 0) return lmdb_error(errno, path);
  bool is_owned = info.st_uid == folder.st_uid || info.st_uid == ::geteuid();
  bool is_ours = S_ISREG(info.st_mode) && is_owned && (info.st_mode & 077) == 0;
  if (!is_ours) return Error{ErrorCode::permission, path + " is somebody else's; remove it"};
  // All of it at once: to find no room while writing would end the process.
  if (int code = ::posix_fallocate(file.get(), 0, whole_size); code != 0) {
    ::unlink(path.c_str());
    return lmdb_error(code, path);
  }
  void* memory = ::mmap(nullptr, whole_size, PROT_READ | PROT_WRITE, MAP_SHARED, file.get(), 0);
  if (memory == MAP_FAILED) return lmdb_error(errno, path);
  return std::unique_ptr<Notepad>(new Notepad(std::move(path), static_cast<char*>(memory)));
}

std::unique_ptr<Notepad> Notepad::for_this_process() {
  void* memory = ::mmap(nullptr, whole_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) throw std::bad_alloc();
  return std::unique_ptr<Notepad>(new Notepad({}, static_cast<char*>(memory)));
}

Notepad::Notepad(std::string path, char* memory) : path_(std::move(path)), memory_(memory), end_(heading_size) {}

Notepad::~Notepad() {
  bool is_done = is_blank(0) && is_blank(1) && unanswered().empty();
  ::munmap(memory_, whole_size);
  if (is_done && outlives_process()) ::unlink(path_.c_str());
}

char* Notepad::sheet(int index) const { return memory_ + static_cast<std::size_t>(index) * sheet_size; }

char* Notepad::slot(std::size_t index) const { return memory_ + 2 * sheet_size + index * slot_size; }

bool Notepad::is_blank(int index) const {
  std::uint32_t size;
  std::memcpy(&size, sheet(index) + heading_size, sizeof size);
  return size == 0;
}

std::vector<Notepad::Note> Notepad::left() const {
  std::pair<std::uint64_t, std::vector<Note>> sheets[2];
  for (int index : {0, 1}) {
    ByteReader in(std::string_view(sheet(index), sheet_size));
    auto& [turn, notes] = sheets[index];
    turn = in.integer<std::uint64_t>();
    for (auto size = in.integer<std::uint32_t>(); in.ok() && size > 0; size = in.integer<std::uint32_t>()) {
      Note note;
      note.segment = in.integer<std::uint32_t>();
      note.after.next_cell = in.integer<CellNumber>();
      note.after.link = in.array<Hash>();
      note.record.kind = static_cast<RecordKind>(in.integer<std::uint32_t>());
      note.record.commitment = in.array<Hash>();
      note.record.sealed = in.raw(size);
      in.raw(room_of(size) - note_overhead - size);
      if (in.ok()) notes.push_back(std::move(note));
    }
  }
  auto& [first, second] = sheets;
  if (second.first < first.first) std::swap(first, second);
  std::vector<Note> all = std::move(first.second);
  std::move(second.second.begin(), second.second.end(), std::back_inserter(all));
  return all;
}

void Notepad::add(std::uint32_t segment, const Segment::Tail& after, const SealedRecord& record) {
  const std::size_t room = room_of(record.sealed.size());
  if (end_ + room + sizeof(std::uint32_t) > sheet_size) return;
  char* note = sheet(open_) + end_;
  ByteWriter out;
  out.integer(segment);
  out.integer(after.next_cell);
  out.raw(view(after.link));
  out.integer(static_cast<std::uint32_t>(record.kind));
  out.raw(view(record.commitment));
  out.raw(record.sealed);
  std::memcpy(note + sizeof(std::uint32_t), out.bytes().data(), out.bytes().size());
  set(note + room, std::uint32_t{0});
  set(note, static_cast<std::uint32_t>(record.sealed.size()));
  end_ += room;
}

void Notepad::turn() {
  const int other = 1 - open_;
  if (is_blank(open_) || !is_blank(other)) return;
  open_ = other;
  end_ = heading_size;
  ++turns_;
  std::memcpy(sheet(open_), &turns_, sizeof turns_);
}

void Notepad::wipe(int index) { set(sheet(index) + heading_size, std::uint32_t{0}); }

void Notepad::wipe() { wipe(1 - open_); }

void Notepad::wipe_all() {
  wipe(0);
  wipe(1);
  std::memset(sheet(0), 0, heading_size);
  std::memset(sheet(1), 0, heading_size);
  open_ = 0;
  end_ = heading_size;
  turns_ = 0;
}

void Notepad::sent(const Sent& entry) {
  for (std::size_t i = 0; i < slots; ++i) {
    char* place = slot(i);
    if (entry_in(place) != 0) continue;
    std::memcpy(place + sizeof(RecordId), entry.content.data(), entry.content.size());
    return set(place, entry.entry);
  }
}

void Notepad::answered(RecordId entry) {
  for (std::size_t i = 0; i < slots; ++i)
    if (entry_in(slot(i)) == entry) return set(slot(i), RecordId{0});
}

std::vector<Notepad::Sent> Notepad::unanswered() const {
  std::vector<Sent> all;
  for (std::size_t i = 0; i < slots; ++i) {
    Sent one{entry_in(slot(i)), {}};
    std::memcpy(one.content.data(), slot(i) + sizeof(RecordId), one.content.size());
    if (one.entry != 0) all.push_back(one);
  }
  return all;
}

void Notepad::forget_unanswered() {
  for (std::size_t i = 0; i < slots; ++i) set(slot(i), RecordId{0});
}

namespace {

/// The end of the log, as far back as the notes go.
struct Past {
  std::map<CellNumber, Hash> links;  ///< of records, and, under the number before a segment's first cell, of what came before it
  std::set<Hash> commitments;
  std::map<std::uint32_t, Key> keys;  ///< of the segments
};

/// Adds what is in a segment from the cell on, and the record before that.
Status look_back(const Segment& segment, CellNumber to, Past& past) {
  Status read = segment.each_record_backwards(~CellNumber{0}, [&](const Segment::StoredRecord& one) {
    past.links[one.id] = one.link;
    past.commitments.insert(one.commitment);
    return one.id >= to;
  });
  past.links[segment.header().first_cell - 1] = segment.header().previous_link;
  past.keys[segment.header().number] = segment.key();
  return read;
}

Result<Past> past_of(const std::vector<Notepad::Note>& notes, const std::string& journal, const KeyRing& keys,
                     const std::vector<std::uint32_t>& numbers, const Segment& newest) {
  CellNumber to = ~CellNumber{0};
  std::uint32_t to_segment = newest.header().number;
  for (const Notepad::Note& note : notes) {
    to = std::min(to, note.after.next_cell);
    to_segment = std::min(to_segment, note.segment);
  }
  Past past;
  if (Status looked = look_back(newest, to, past); !looked) return looked.error();
  // Notes are of the segments that were the newest in the last milliseconds; with nonsense this would look through the whole journal.
  constexpr std::size_t most_segments = 3;
  for (auto number = numbers.rbegin(); number != numbers.rend() && past.keys.size() < most_segments; ++number) {
    if (*number == newest.header().number) continue;
    bool is_far_enough = past.links.begin()->first < to && past.keys.begin()->first <= to_segment;
    if (is_far_enough) break;
    auto segment = Segment::open(journal, *number, keys, Environment::Mode::read);
    if (!segment) break;  // others tell of that
    if (Status looked = look_back(**segment, to, past); !looked) return looked.error();
  }
  return past;
}

/// Whether the record is one of this log that is not in it yet.
bool is_missing(const Notepad::Note& note, const Past& past, const Segment::Tail& tail) {
  auto before = past.links.lower_bound(note.after.next_cell);
  bool is_this_log = note.after.next_cell <= tail.next_cell && before != past.links.begin() && std::prev(before)->second == note.after.link;
  return is_this_log && past.commitments.count(note.record.commitment) == 0;
}

}  // namespace

Result<std::vector<SealedRecord>> missing_in_log(const Notepad& notepad, const std::string& journal, const KeyRing& keys,
                                                 const std::vector<std::uint32_t>& numbers, const Segment& newest, const Segment::Tail& tail) {
  const std::vector<Notepad::Note> notes = notepad.left();
  std::vector<SealedRecord> missing;
  if (notes.empty()) return missing;
  auto past = past_of(notes, journal, keys, numbers, newest);
  if (!past) return past.error();
  for (const Notepad::Note& note : notes) {
    auto key = past->keys.find(note.segment);
    if (key == past->keys.end() || !is_missing(note, *past, tail)) continue;
    if (std::optional<SealedRecord> record = move_record(key->second, newest.key(), note.record)) missing.push_back(std::move(*record));
  }
  return missing;
}

}  // namespace holdfast::journal
