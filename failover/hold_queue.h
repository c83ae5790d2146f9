// The hold queue of a route: what is to be delivered next, in order for each recipient.
//
// A decision only, with the clock handed in: it knows entries by number and recipients by a hash. An older message goes before a newer
// one to the same recipient, always; recipients do not wait for each other. Not thread-safe.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <unordered_map>
#include <vector>

#include "failover/breaker.h"

namespace holdfast::failover {

using EntryId = std::uint64_t;

struct RetryOptions {
  Span retry_min{30'000}, retry_max{1'800'000};  ///< after a temporary refusal: the first wait, doubling to the last
  bool operator==(const RetryOptions&) const = default;
};

class HoldQueue {
 public:
  explicit HoldQueue(RetryOptions options) : options_(options) {}
  void set_options(RetryOptions options) { options_ = options; }

  struct Recipient {
    std::uint32_t index;  ///< in the entry
    std::uint64_t lane;   ///< a hash of the address
  };
  /// Adds an entry, or further recipients of one that is there. Entries may come in any order.
  void add(EntryId id, std::int64_t time_us, const std::vector<Recipient>& recipients);

  struct Delivery {
    EntryId id;
    std::vector<std::uint32_t> recipients;
  };
  /// The oldest entry with recipients that may be delivered to now; they are in flight until settle() or put_back().
  std::optional<Delivery> next(Time now);

  /// The entry that comes after one in flight for the same recipient, to be made ready while the other is under way. It may be
  /// delivered only once is_first() says so; it is in flight too.
  std::optional<Delivery> next_behind(const Delivery& ahead, Time now);
  /// True when nothing older is left for any of its recipients.
  bool is_first(const Delivery& delivery) const;

  /// Takes all recipients of one entry in flight, wherever they stand; nothing when some of them are already.
  std::optional<Delivery> take(EntryId id);
  /// The oldest entry after this one; nothing when there is none.
  std::optional<EntryId> first_after(EntryId id) const;

  /// A recipient in flight is done with.
  void remove(EntryId id, std::uint32_t recipient);
  /// It was refused for now, and is tried again later.
  void defer(EntryId id, std::uint32_t recipient, const std::string& reply, Time now);
  /// Nothing happened: the whole delivery is as before, to be tried as soon as there is a connection.
  void put_back(const Delivery& delivery);
  /// The connection was lost in its middle. Once may be chance, and it is put back; from the second time on it waits as if refused for
  /// now: it may be its own content that the primary does not survive, and others must get their turn.
  void interrupted(const Delivery& delivery, const std::string& why, Time now);
  /// Recipients that wait for their next attempt become due now. For one entry, or all (0).
  void retry_now(EntryId id);

  std::size_t size() const { return entries_.size(); }
  /// Of all entries together.
  std::size_t recipients() const { return recipients_; }
  /// How many entries can go to nobody now: each of their recipients was refused for now, or waits behind such a refusal.
  std::size_t blocked(Time now) const;
  bool has(EntryId id) const { return entries_.count(id) > 0; }
  bool is_in_flight(EntryId id) const;
  /// The oldest entry; nothing when empty.
  std::optional<EntryId> oldest() const;
  std::int64_t time_us(EntryId id) const { return entries_.at(id).time_us; }
  /// When something becomes due by itself; nothing when only a settlement can make it so.
  std::optional<Time> next_due() const;
  struct Waiting {
    std::uint32_t index;
    unsigned attempts;
    std::string reply;
    bool is_in_flight;
    Time due;
  };
  std::vector<Waiting> waiting(EntryId id) const;

 private:
  struct Pending {
    std::uint64_t lane;
    unsigned attempts = 0;
    bool is_in_flight = false;
    bool was_interrupted = false;
    Time due{};
    std::string reply;
  };
  struct Entry {
    std::int64_t time_us;
    std::map<std::uint32_t, Pending> recipients;
  };
  void look_at_front(std::uint64_t lane);
  bool is_front(EntryId id, std::uint64_t lane) const;

  RetryOptions options_;
  std::map<EntryId, Entry> entries_;
  std::size_t recipients_ = 0;
  std::unordered_map<std::uint64_t, std::set<EntryId>> lanes_;
  std::set<EntryId> ready_;                ///< perhaps deliverable now
  std::multimap<Time, EntryId> deferred_;  ///< to be looked at then
};

}  // namespace holdfast::failover
