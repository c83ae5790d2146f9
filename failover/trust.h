// Trust: whether a primary that refuses held mail for good is believed. A refusal makes a notification to the sender, which cannot be undone.
//
// One that comes back half restored, without its people or its domains, refuses everybody for good. It is known by taking nothing.
// A decision only. Not thread-safe.
#pragma once

#include <cstdint>

namespace holdfast::failover {

class Trust {
 public:
  /// @param doubt_after  so many messages refused in a row are believed; 0: all are
  void set_doubt_after(std::uint64_t doubt_after) { doubt_after_ = doubt_after; }

  /// It took a message.
  void took();
  /// It is out: how it comes back is to be seen.
  void is_away();
  /// It refused a held message for good. Returns whether that is believed: not where as many are refused in a row, or are held while it
  /// has taken nothing since it came back.
  ///
  /// @param held  messages that wait for it, this one included
  bool believes_refusal(std::uint64_t held);
  /// Since it came back it has refused for good as many as are enough to tell that it is not itself.
  bool takes_nothing() const { return doubt_after_ > 0 && !has_taken_some_ && refused_in_a_row_ >= doubt_after_; }

 private:
  std::uint64_t doubt_after_ = 20, refused_in_a_row_ = 0;
  bool has_taken_some_ = false;
};

}  // namespace holdfast::failover
