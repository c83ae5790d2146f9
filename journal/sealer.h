// The sealer: has each segment that is no longer written compacted, gives it its signed head and manifest, on a
// thread of its own, and has heads published.
#pragma once

#include <condition_variable>
#include <functional>
#include <mutex>
#include <set>
#include <string>
#include <thread>

#include "journal/head.h"
#include "journal/pace.h"
#include "journal/segments.h"
#include "journal/witnesses.h"

namespace holdfast::journal {

/// The head of a segment: walks its records, checks that they are a chain, and signs. Error: corrupt (then
/// nothing is signed).
Result<std::string> make_head(const std::string& journal, const Segment& segment, const SigningKey& key, Pace& pace);

struct SealerOptions {
  std::string journal;
  /// Compacts a sealed segment while goes_on says so; may be empty.
  std::function<Status(std::uint32_t number, const std::function<bool()>& goes_on)> compact;
  std::vector<Witness> witnesses;  ///< asked on the sealer's thread
  std::function<void(bool is_error, const std::string&)> on_event;
  std::mutex& one_at_a_time;  ///< held by who rewrites segments, and while one is sealed
};

class Sealer {
 public:
  Sealer(SealerOptions options, Segments& segments, SigningKey key, std::uint32_t newest);
  /// Finishes the head and manifest that it is at; what is being compacted stays as it was.
  ~Sealer();
  /// Segments below this one are written no more. Thread-safe.
  void newest_is(std::uint32_t number);
  /// Seals now all below this one, in order: what is rewritten must have its head, since the links of its chain are lost then. The caller
  /// holds one_at_a_time. Error: of the first that could not be sealed.
  Status seal_below(std::uint32_t number);

 private:
  void run();
  Status seal_all(std::uint32_t newest);
  Status seal_next(std::uint32_t number, Pace pace, Status& first_problem);
  Status compact_all(std::uint32_t newest);
  Status seal(std::uint32_t number, Pace& pace);
  bool is_stopping();
  bool is_wanted();

  const SealerOptions options_;
  Segments& segments_;
  const SigningKey key_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::uint32_t newest_;
  bool has_work_ = true, is_stopping_ = false;
  std::string last_problem_;
  std::set<std::uint32_t> compacted_;  ///< the thread's own
  std::thread thread_;
};

}  // namespace holdfast::journal
