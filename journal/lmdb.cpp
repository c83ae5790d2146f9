#include "journal/lmdb.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#include <cerrno>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <mutex>
#include <thread>

#include "journal/fault_guard.h"
#include "journal/files.h"

namespace holdfast::journal {
namespace {

/// With less than this, a failed write failed for want of space.
constexpr unsigned long spare_bytes = 1024 * 1024;
/// At once, in all processes.
constexpr unsigned most_readers = 1000;
/// So long one waits for the transactions of others before a file is opened anew, with a glance now and then: a mutex that can be waited
/// for with a limit is one that ThreadSanitizer does not see.
constexpr auto reopen_patience = std::chrono::seconds(1);
constexpr auto reopen_glance = std::chrono::milliseconds(1);

MDB_val value_of(std::string_view bytes) { return {bytes.size(), const_cast<char*>(bytes.data())}; }
std::string_view view_of(const MDB_val& value) { return {static_cast<const char*>(value.mv_data), value.mv_size}; }

/// LMDB maps its lock file into memory and writes it there: a page of it for which the disk has no room would end the process.
/// Returns 0, or ENOSPC and the like; 0 also where there can be no lock file, which LMDB finds out.
int allocate_lock_file(const std::string& path) {
  constexpr off_t whole_size = 64 * 1024;  // somewhat more than most_readers take
  constexpr blkcnt_t blocks_of = 512;      // bytes, as stat() counts them
  FileDescriptor made(::open(path.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
  if (made) {
    int code = ::posix_fallocate(made.get(), 0, whole_size);
    if (code != 0) ::unlink(path.c_str());
    return code;
  }
  // Of an older version, or of a process that was killed while it made it. Others may have it open: its size stays.
  struct stat info {};
  if (errno != EEXIST || ::stat(path.c_str(), &info) != 0 || info.st_blocks * blocks_of >= info.st_size) return 0;
  FileDescriptor there(::open(path.c_str(), O_RDWR | O_CLOEXEC));
  bool has_failed = there && ::fallocate(there.get(), FALLOC_FL_KEEP_SIZE, 0, info.st_size) != 0;
  bool has_no_room = has_failed && (errno == ENOSPC || errno == EDQUOT);  // else the file system knows no such thing
  return has_no_room ? errno : 0;
}

/// LMDB reports a write of which only a part was taken as EIO, which says nothing.
int why_half_written(const std::string& path) {
  struct statvfs disk;
  if (::statvfs(path.c_str(), &disk) == 0 && disk.f_bavail * disk.f_frsize < spare_bytes) return ENOSPC;
  struct stat file {};
  rlimit largest{};
  bool is_limited = ::getrlimit(RLIMIT_FSIZE, &largest) == 0 && largest.rlim_cur != RLIM_INFINITY;
  if (is_limited && ::stat(path.c_str(), &file) == 0 && static_cast<rlim_t>(file.st_size) + spare_bytes > largest.rlim_cur) return EFBIG;
  return EIO;
}

}  // namespace

Error lmdb_error(int code, const std::string& what) {
  if (code == EIO) code = why_half_written(what);
  std::string sentence = what + ": " + mdb_strerror(code);
  switch (code) {
    case MDB_MAP_FULL: return {ErrorCode::no_space, what + ": the segment's map is full"};
    case ENOSPC:
    case EDQUOT: return {ErrorCode::no_space, what + ": no space left on the disk; free some or give the journal a larger one"};
    case EFBIG: return {ErrorCode::no_space, what + ": it may not grow more; raise the limit on the size of files (LimitFSIZE, ulimit -f)"};
    case EMFILE:
    case ENFILE: return {ErrorCode::unavailable, sentence + "; allow more of them (LimitNOFILE, ulimit -n)"};
    case ENOMEM:
      return {ErrorCode::unavailable,
              sentence + "; the maps of the journal's files are large, but mostly empty: take away the limit on addresses (LimitAS, ulimit -v)"};
    case EACCES:
    case EPERM: return {ErrorCode::permission, sentence + "; give the user that runs Holdfast access to it"};
    case EROFS: return {ErrorCode::permission, sentence + "; mount it for writing, and see in dmesg whether it became so because its disk fails"};
    case ENOENT: return {ErrorCode::not_found, sentence};
    case MDB_INVALID:
    case MDB_CORRUPTED:
    case MDB_PAGE_NOTFOUND:
    case MDB_CURSOR_FULL:  // no tree of ours is so deep
    case MDB_PAGE_FULL:
    case MDB_VERSION_MISMATCH:
    case MDB_BAD_VALSIZE: return {ErrorCode::corrupt, what + ": the file is damaged (" + mdb_strerror(code) + ")"};
    case MDB_READERS_FULL: return {ErrorCode::busy, what + ": too many readers at once; end some and try again"};
    default: return {ErrorCode::io, sentence};
  }
}

Result<Environment> Environment::open(const std::string& path, Mode mode, std::uint64_t map_size) {
  Environment environment;
  environment.opened_ = std::make_unique<Opened>(path, mode, map_size);
  if (Status opened = environment.opened_->open(); !opened) return opened.error();
  return environment;
}

Status Environment::Opened::open() {
  MDB_env* raw = nullptr;
  if (int code = mdb_env_create(&raw)) return lmdb_error(code, path);
  std::unique_ptr<MDB_env, Close> opening(raw);
  return_faults_of(raw);
  if (map_size > 0) mdb_env_set_mapsize(raw, map_size);
  mdb_env_set_maxreaders(raw, most_readers);
  unsigned flags = MDB_NOSUBDIR | MDB_NOTLS | MDB_NORDAHEAD;
  if (mode != Mode::write) flags |= MDB_RDONLY;
  if (mode == Mode::sealed) flags |= MDB_NOLOCK;
  AsOwner owner(path);
  int code = mode == Mode::sealed ? 0 : allocate_lock_file(path + "-lock");
  if (code == 0) code = mdb_env_open(raw, path.c_str(), flags, 0600);
  // A copy on read-only media, or on a full disk or quota, has no lock file and no writer: read it without one.
  if (mode == Mode::read && (code == EROFS || code == EACCES || code == ENOSPC || code == EDQUOT)) {
    opening.reset();
    if (mdb_env_create(&raw)) return lmdb_error(code, path);
    opening.reset(raw);
    return_faults_of(raw);
    if (mdb_env_open(raw, path.c_str(), flags | MDB_NOLOCK, 0600) == 0) code = 0;
  }
  if (code) return lmdb_error(code, path);
  int dead_readers;
  mdb_reader_check(raw, &dead_readers);
  env = std::move(opening);
  return {};
}

/// @param failed  the one that refused; when there is another by now, somebody was quicker
Status Environment::Opened::open_anew(const MDB_env* failed) {
  const auto end = std::chrono::steady_clock::now() + reopen_patience;
  std::unique_lock alone(in_use, std::try_to_lock);
  for (; !alone && std::chrono::steady_clock::now() < end; alone.try_lock()) std::this_thread::sleep_for(reopen_glance);
  if (!alone) return Error{ErrorCode::io, path + ": a write failed, and others are still reading; it is opened anew with the next try"};
  if (env.get() != failed) return {};
  env.reset();
  return open();
}

void Environment::Opened::look_after_readers() {
  constexpr std::uint32_t interval = 64;
  int dead;
  if (++writes % interval == 0) mdb_reader_check(env.get(), &dead);
}

std::uint64_t Environment::used_bytes() const {
  MDB_envinfo info;
  MDB_stat stat;
  std::shared_lock in_use(opened_->in_use);
  if (!get()) return 0;
  mdb_env_info(get(), &info);
  mdb_env_stat(get(), &stat);
  return (info.me_last_pgno + 1) * stat.ms_psize;
}

std::uint64_t Environment::commits() const {
  MDB_envinfo info;
  std::shared_lock in_use(opened_->in_use);
  if (!get()) return 0;
  mdb_env_info(get(), &info);
  return info.me_last_txnid;
}

Result<std::uint64_t> Environment::file_size() const {
  mdb_filehandle_t file = -1;
  struct stat info {};
  std::shared_lock in_use(opened_->in_use);
  int code = get() ? mdb_env_get_fd(get(), &file) : EIO;
  if (code == 0 && ::fstat(file, &info) != 0) code = errno;
  if (code != 0) return lmdb_error(code, path());
  return static_cast<std::uint64_t>(info.st_size);
}

bool Environment::is_in_place() const {
  mdb_filehandle_t file = -1;
  struct stat open {
  }, there{};
  std::shared_lock in_use(opened_->in_use);
  if (!get() || mdb_env_get_fd(get(), &file) != 0 || ::fstat(file, &open) != 0) return true;  // nothing is open: it is opened by its path
  return ::stat(path().c_str(), &there) == 0 && open.st_dev == there.st_dev && open.st_ino == there.st_ino;
}

void Environment::reserve(std::uint64_t bytes) const {
  const std::uint64_t used = used_bytes();
  mdb_filehandle_t file = -1;
  std::shared_lock in_use(opened_->in_use);
  if (used == 0 || !get() || mdb_env_get_fd(get(), &file) != 0) return;
  [[maybe_unused]] int kept = ::fallocate(file, FALLOC_FL_KEEP_SIZE, static_cast<off_t>(used), static_cast<off_t>(bytes));
}

Status Environment::fill_up() const {
  std::uint64_t used = used_bytes();
  Result<std::uint64_t> size = file_size();
  if (!size) return size.error();
  if (*size >= used) return {};
  // This only ever makes a file longer, whoever else writes it at this moment.
  FileDescriptor file(::open(path().c_str(), O_RDWR | O_CLOEXEC));
  int code = file ? ::posix_fallocate(file.get(), static_cast<off_t>(used - 1), 1) : errno;
  if (code == ENOSPC) return lmdb_error(code, path());
  if (code != 0) return Error{ErrorCode::corrupt, path() + ": the file is damaged: it was cut short"};
  return {};
}

void Environment::forget_pages() const {
  // LMDB does not tell where its map is; the system does.
  std::ifstream maps("/proc/self/maps");
  std::string absolute = std::filesystem::absolute(path()).lexically_normal().string();
  for (std::string line; std::getline(maps, line);) {
    if (!line.ends_with(' ' + absolute)) continue;
    unsigned long start = 0, end = 0;
    if (std::sscanf(line.c_str(), "%lx-%lx", &start, &end) == 2)
      ::madvise(reinterpret_cast<void*>(start), end - start, MADV_DONTNEED);  // NOLINT: an address is a number here
  }
}

/// Returns LMDB's code: MDB_PANIC when the file is to be opened anew, instead of failed.
int Transaction::begin_on(Environment::Opened& file, Environment::Mode mode, const MDB_env*& failed) {
  MDB_txn* raw = nullptr;
  unsigned flags = mode == Environment::Mode::write ? 0 : MDB_RDONLY;
  std::shared_lock in_use(file.in_use);
  MDB_env* env = file.env.get();
  int code = env ? mdb_txn_begin(env, nullptr, flags, &raw) : MDB_PANIC;
  // Another process may have made the map larger: adopt its size.
  if (code == MDB_MAP_RESIZED && mdb_env_set_mapsize(env, 0) == 0) code = mdb_txn_begin(env, nullptr, flags, &raw);
  failed = env;
  if (code) return code;
  txn_ = {raw, Abort{std::move(in_use)}};
  path_ = file.path;
  if (mode == Environment::Mode::write) file.look_after_readers();
  return mdb_dbi_open(raw, nullptr, 0, &database_);
}

Result<Transaction> Transaction::begin(const Environment& env, Environment::Mode mode) {
  Transaction transaction;
  const MDB_env* failed = nullptr;
  int code = transaction.begin_on(*env.opened_, mode, failed);
  if (code == MDB_PANIC) {
    if (Status opened = env.opened_->open_anew(failed); !opened) return opened.error();
    code = transaction.begin_on(*env.opened_, mode, failed);
  }
  if (code) return lmdb_error(code, env.path());
  return transaction;
}

Result<std::optional<std::string_view>> Transaction::get(std::string_view key) const {
  MDB_val k = value_of(key), v;
  int code = guarded([&] {
    int got = mdb_get(txn_.get(), database_, &k, &v);
    return got ? got : touch(v);
  });
  if (code == MDB_NOTFOUND) return std::optional<std::string_view>();
  if (code) return lmdb_error(code, path_);
  return std::optional(view_of(v));
}

Status Transaction::put(std::string_view key, std::string_view value, unsigned flags) {
  MDB_val k = value_of(key), v = value_of(value);
  if (int code = guarded([&] { return mdb_put(txn_.get(), database_, &k, &v, flags); })) return lmdb_error(code, path_);
  return {};
}

Status Transaction::erase(std::string_view key) {
  MDB_val k = value_of(key);
  int code = guarded([&] { return mdb_del(txn_.get(), database_, &k, nullptr); });
  if (code && code != MDB_NOTFOUND) return lmdb_error(code, path_);
  return {};
}

Status Transaction::drop_all() {
  if (int code = guarded([&] { return mdb_drop(txn_.get(), database_, 0); })) return lmdb_error(code, path_);
  return {};
}

Status Transaction::commit() {
  MDB_txn* transaction = txn_.release();
  volatile bool is_over = false;
  int code = guarded([&] {
    int committed = mdb_txn_commit(transaction);
    is_over = true;
    return committed;
  });
  if (!is_over) mdb_txn_abort(transaction);
  txn_.get_deleter().in_use = {};
  // It writes a page where the page's own number says: an absurd one is damage.
  if (code == EINVAL || code == EFBIG) code = MDB_CORRUPTED;
  if (code) return lmdb_error(code, path_);
  return {};
}

Result<Cursor> Cursor::open(const Transaction& transaction, WantsValue wants_value) {
  Cursor cursor;
  cursor.wants_value_ = wants_value;
  MDB_cursor* raw = nullptr;
  if (int code = mdb_cursor_open(transaction.get(), transaction.database(), &raw)) return lmdb_error(code, transaction.path());
  cursor.cursor_.reset(raw);
  cursor.path_ = transaction.path();
  return cursor;
}

Result<std::optional<Cursor::Item>> Cursor::move(std::string_view key, MDB_cursor_op operation) {
  MDB_val k = value_of(key), v;
  int code = guarded([&] {
    int moved = mdb_cursor_get(cursor_.get(), &k, &v, operation);
    if (moved == 0) moved = touch(k);
    if (moved == 0 && wants_value_ && !wants_value_(view_of(k))) v = {};
    return moved ? moved : touch(v);
  });
  if (code == MDB_NOTFOUND) return std::optional<Item>();
  if (code) return lmdb_error(code, path_);
  return std::optional(Item{view_of(k), view_of(v)});
}

Result<std::optional<Cursor::Item>> Cursor::at_or_after(std::string_view key) { return move(key, MDB_SET_RANGE); }
Result<std::optional<Cursor::Item>> Cursor::next() { return move({}, MDB_NEXT); }
Result<std::optional<Cursor::Item>> Cursor::previous() { return move({}, MDB_PREV); }
Result<std::optional<Cursor::Item>> Cursor::last() { return move({}, MDB_LAST); }

}  // namespace holdfast::journal
