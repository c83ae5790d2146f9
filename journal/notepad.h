// The notepad: what a process that is killed could not say any more, in memory that outlives it. The next start finds there what became of
// the mail of the last milliseconds, and brings it into the log; and which held mail the primary may have without having said so.
//
// It is a file of the machine's memory, in /dev/shm: a power cut takes it too, and all works without it. Records that are on their way into
// the log and nobody waits for (outcomes, above all) are noted sealed, as they will be in the log. Two sheets take turns: while one is
// written on, what stands on the other is being committed, and then wiped off. Beside them is a list of what waits for its answer.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "journal/segment.h"

namespace holdfast::journal {

/// add() and turn() under a lock of the caller's; wipe() by the thread that calls turn(); sent() and answered() by one thread.
class Notepad {
 public:
  struct Note {
    std::uint32_t segment = 0;  ///< whose key it is sealed with
    Segment::Tail after{};      ///< the log's end when it was noted
    SealedRecord record;
  };
  /// An entry whose whole content is with the primary, or on its way there, and of which no answer is known.
  struct Sent {
    RecordId entry = 0;
    ContentId content{};  ///< so that it is not taken for an entry of another log
  };

  static std::string path_of(const std::string& journal, const Key& base_key);
  /// Opens the notepad of the journal in that folder, or makes it. For whoever holds the journal's lock. Error: permission, io or
  /// no_space; go on with one that is lost with the process then.
  static Result<std::unique_ptr<Notepad>> open(const std::string& journal, const Key& base_key);
  /// One that is lost with the process.
  static std::unique_ptr<Notepad> for_this_process();
  bool outlives_process() const { return !path_.empty(); }
  /// Takes it away, unless something is on it.
  ~Notepad();
  Notepad(const Notepad&) = delete;
  Notepad& operator=(const Notepad&) = delete;

  /// What a process that was killed has left, in the order in which it was noted. To be called before anything else.
  std::vector<Note> left() const;

  /// Notes a record, if there is room. Does not wait.
  void add(std::uint32_t segment, const Segment::Tail& after, const SealedRecord& record);
  /// What is noted from now on stands on a fresh sheet, if there is one.
  void turn();
  /// All that was noted before the last turn is in the log.
  void wipe();
  /// All that was noted is in the log.
  void wipe_all();

  /// An entry is about to have been sent whole. Does not wait; with more than 512 at once the rest is not noted.
  void sent(const Sent& entry);
  /// The answer came, or never will, and that is noted or in the log.
  void answered(RecordId entry);
  /// What a process that ended has left. To be called before anything else.
  std::vector<Sent> unanswered() const;
  void forget_unanswered();

 private:
  Notepad(std::string path, char* memory);
  char* sheet(int index) const;
  char* slot(std::size_t index) const;
  bool is_blank(int index) const;
  void wipe(int index);

  const std::string path_;  ///< empty: no file
  char* const memory_;
  int open_ = 0;     ///< the sheet that is written on
  std::size_t end_;  ///< of what stands there
  std::uint64_t turns_ = 0;
};

/// What was left on the notepad and is not in the log, sealed for its newest segment. Notes of another log, such as one that a backup has
/// replaced, are left out. Errors: io, corrupt.
/// @param numbers  of all segments, ascending
/// @param tail     of the newest one
Result<std::vector<SealedRecord>> missing_in_log(const Notepad& notepad, const std::string& journal, const KeyRing& keys,
                                                 const std::vector<std::uint32_t>& numbers, const Segment& newest, const Segment::Tail& tail);

}  // namespace holdfast::journal
