#include "proxy/flag_file.h"

#include <sys/inotify.h>

#include <filesystem>

namespace holdfast::proxy {

FlagFile::FlagFile(event_base* base, std::string path, std::function<void(bool is_there)> on_change)
    : path_(std::move(path)), on_change_(std::move(on_change)), inotify_(::inotify_init1(IN_NONBLOCK | IN_CLOEXEC)) {
  std::filesystem::path folder = std::filesystem::path(path_).parent_path();
  if (folder.empty()) folder = std::filesystem::path(".");
  ::inotify_add_watch(inotify_.get(), folder.c_str(), IN_CREATE | IN_DELETE | IN_MOVED_TO | IN_MOVED_FROM);
  event_assign(&watch_, base, inotify_.get(), EV_READ | EV_PERSIST, &FlagFile::on_event, this);
  event_add(&watch_, nullptr);
  event_assign(&timer_, base, -1, EV_PERSIST, &FlagFile::on_event, this);
  timeval second{1, 0};
  event_add(&timer_, &second);
  std::error_code ignored;
  is_there_ = std::filesystem::exists(path_, ignored);
  on_change_(is_there_);
}

FlagFile::~FlagFile() {
  event_del(&watch_);
  event_del(&timer_);
}

void FlagFile::on_event(evutil_socket_t, short, void* self) { static_cast<FlagFile*>(self)->look(); }

void FlagFile::look() {
  char events[4096];
  while (::read(inotify_.get(), events, sizeof events) > 0) continue;
  std::error_code ignored;
  bool is_there = std::filesystem::exists(path_, ignored);
  if (is_there == is_there_) return;
  is_there_ = is_there;
  on_change_(is_there);
}

}  // namespace holdfast::proxy
