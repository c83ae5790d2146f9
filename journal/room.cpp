#include "journal/room.h"

#include <fcntl.h>
#include <pthread.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#include <string_view>

namespace holdfast::journal {
namespace {

/// So much room is made, in pieces that keep nobody waiting, as soon as less than half of it is left.
constexpr std::uint64_t room_size = 1024 * 1024;
constexpr std::size_t piece_size = 128 * 1024;
/// The last of a disk is for mail.
constexpr std::uint64_t least_free = 512ULL * 1024 * 1024;

bool has_space(int file) {
  struct statvfs disk;
  return ::fstatvfs(file, &disk) == 0 && disk.f_bavail * disk.f_frsize >= least_free;
}

std::uint64_t size_of(int file) {
  struct stat info;
  return ::fstat(file, &info) == 0 ? static_cast<std::uint64_t>(info.st_size) : 0;
}

}  // namespace

Room::Room() : thread_([this] { run(); }) {}

Room::~Room() {
  {
    std::lock_guard lock(mutex_);
    is_stopping_ = true;
  }
  wake_.notify_one();
  thread_.join();
}

void Room::enter(const std::string& path, std::uint64_t used) {
  {
    std::lock_guard lock(file_mutex_);
    file_ = FileDescriptor(::open(path.c_str(), O_WRONLY | O_APPEND | O_CLOEXEC));
    end_ = file_ ? size_of(file_.get()) : 0;
  }
  this->used(used);
}

void Room::used(std::uint64_t bytes) {
  used_ = bytes;
  if (end_ >= bytes + room_size / 2) return;
  {
    std::lock_guard lock(mutex_);
    is_wanted_ = true;
  }
  wake_.notify_one();
}

void Room::leave(std::uint64_t used) {
  std::lock_guard lock(file_mutex_);
  // Should it fail, the file stays a little longer than it need be.
  if (file_ && used > 0 && size_of(file_.get()) > used) [[maybe_unused]]
    int cut = ::ftruncate(file_.get(), static_cast<off_t>(used));
  file_.reset();
  end_ = 0;
}

void Room::run() {
  pthread_setname_np(pthread_self(), "room");
  std::unique_lock lock(mutex_);
  for (;;) {
    wake_.wait(lock, [this] { return is_wanted_ || is_stopping_; });
    if (is_stopping_) return;
    is_wanted_ = false;
    lock.unlock();
    extend();
    lock.lock();
  }
}

void Room::extend() {
  static constexpr char zeros[piece_size] = {};
  std::lock_guard lock(file_mutex_);
  if (!file_ || !has_space(file_.get())) return;
  std::uint64_t end = size_of(file_.get());
  while (end < used_ + room_size) {
    ssize_t written = ::write(file_.get(), zeros, piece_size);
    if (written <= 0) return;
    end += static_cast<std::uint64_t>(written);
  }
  // Only what is on the disk spares a commit the wait.
  if (::fdatasync(file_.get()) == 0) end_ = end;
}

}  // namespace holdfast::journal
