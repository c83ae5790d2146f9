// The flag file: while it exists, all routes hold. Noticed at once, by inotify on its folder.
#pragma once

#include <event2/event.h>
#include <event2/event_struct.h>

#include <functional>
#include <string>

#include "journal/files.h"

namespace holdfast::proxy {

class FlagFile {
 public:
  /// Calls on_change at once and then whenever the file comes or goes, on the base's thread. Where the folder cannot be watched
  /// (it does not exist yet), it is looked at every second instead.
  FlagFile(event_base* base, std::string path, std::function<void(bool is_there)> on_change);
  ~FlagFile();
  FlagFile(const FlagFile&) = delete;
  FlagFile& operator=(const FlagFile&) = delete;

 private:
  static void on_event(evutil_socket_t, short, void* self);
  void look();

  std::string path_;
  std::function<void(bool)> on_change_;
  FileDescriptor inotify_;
  event watch_, timer_;
  bool is_there_ = false;
};

}  // namespace holdfast::proxy
