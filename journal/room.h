// Room: zeros that stand behind the end of the newest segment before they are needed.
//
// A commit into a file that must grow has the file system allocate space and write its own records, and waits for all of it.
// A commit into room overwrites: it waits for its pages alone. The zeros are only ever appended, so they can hit nothing that
// is being written; what is left of them is cut off when the segment is left.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <string>
#include <thread>

#include "journal/files.h"

namespace holdfast::journal {

class Room {
 public:
  Room();
  /// Does not cut: leave() does.
  ~Room();
  Room(const Room&) = delete;
  Room& operator=(const Room&) = delete;

  /// Begins with the file at path, of which so many bytes are used. When it cannot be opened, there is no room, and nothing else amiss.
  void enter(const std::string& path, std::uint64_t used);
  /// So many bytes are used now: more room is made when little is left, on a thread of its own. Does not wait, and allocates nothing.
  void used(std::uint64_t bytes);
  /// Cuts off what is left, unless 0 says that nobody knows what is used, and has done with the file. For the thread that writes the file,
  /// while it writes nothing.
  void leave(std::uint64_t used);

 private:
  void run();
  void extend();

  std::atomic<std::uint64_t> used_{0}, end_{0};  ///< bytes of the file: written by the journal, and in all
  std::mutex file_mutex_;                        ///< held while the file is made longer or shorter
  FileDescriptor file_;
  std::mutex mutex_;
  std::condition_variable wake_;
  bool is_wanted_ = false, is_stopping_ = false;
  std::thread thread_;
};

}  // namespace holdfast::journal
