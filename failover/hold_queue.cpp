#include "failover/hold_queue.h"

#include <algorithm>
#include <iterator>
#include <unordered_set>
#include <utility>

namespace holdfast::failover {

bool HoldQueue::is_front(EntryId id, std::uint64_t lane) const {
  auto found = lanes_.find(lane);
  return found != lanes_.end() && *found->second.begin() == id;
}

/// Whoever is first in the lane now may be deliverable.
void HoldQueue::look_at_front(std::uint64_t lane) {
  auto found = lanes_.find(lane);
  if (found != lanes_.end()) ready_.insert(*found->second.begin());
}

void HoldQueue::add(EntryId id, std::int64_t time_us, const std::vector<Recipient>& recipients) {
  if (recipients.empty()) return;
  Entry& entry = entries_[id];
  entry.time_us = time_us;
  for (const Recipient& one : recipients) {
    Pending pending;
    pending.lane = one.lane;
    if (!entry.recipients.emplace(one.index, std::move(pending)).second) continue;
    lanes_[one.lane].insert(id);
    ++recipients_;
  }
  ready_.insert(id);
}

std::optional<HoldQueue::Delivery> HoldQueue::next(Time now) {
  while (!deferred_.empty() && deferred_.begin()->first <= now) {
    ready_.insert(deferred_.begin()->second);
    deferred_.erase(deferred_.begin());
  }
  while (!ready_.empty()) {
    EntryId id = *ready_.begin();
    ready_.erase(ready_.begin());
    auto found = entries_.find(id);
    if (found == entries_.end()) continue;
    Delivery delivery{id, {}};
    for (auto& [index, pending] : found->second.recipients) {
      if (pending.is_in_flight || pending.due > now || !is_front(id, pending.lane)) continue;
      pending.is_in_flight = true;
      delivery.recipients.push_back(index);
    }
    if (!delivery.recipients.empty()) return delivery;
  }
  return std::nullopt;
}

std::optional<HoldQueue::Delivery> HoldQueue::next_behind(const Delivery& ahead, Time now) {
  auto before = entries_.find(ahead.id);
  if (before == entries_.end() || ahead.recipients.empty()) return std::nullopt;
  std::set<std::uint64_t> freed;
  for (std::uint32_t index : ahead.recipients) freed.insert(before->second.recipients.at(index).lane);
  const std::set<EntryId>& line = lanes_.at(*freed.begin());
  auto behind = line.upper_bound(ahead.id);
  if (behind == line.end()) return std::nullopt;
  Delivery delivery{*behind, {}};
  for (auto& [index, pending] : entries_.at(*behind).recipients) {
    if (pending.is_in_flight || pending.due > now) continue;
    bool is_next = freed.count(pending.lane) > 0 && *std::next(lanes_.at(pending.lane).find(ahead.id)) == *behind;
    if (!is_next && !is_front(*behind, pending.lane)) continue;
    pending.is_in_flight = true;
    delivery.recipients.push_back(index);
  }
  if (delivery.recipients.empty()) return std::nullopt;
  return delivery;
}

bool HoldQueue::is_first(const Delivery& delivery) const {
  auto found = entries_.find(delivery.id);
  if (found == entries_.end()) return false;
  return std::all_of(delivery.recipients.begin(), delivery.recipients.end(), [&](std::uint32_t index) {
    auto one = found->second.recipients.find(index);
    return one != found->second.recipients.end() && is_front(delivery.id, one->second.lane);
  });
}

std::optional<HoldQueue::Delivery> HoldQueue::take(EntryId id) {
  auto found = entries_.find(id);
  if (found == entries_.end() || is_in_flight(id)) return std::nullopt;
  Delivery delivery{id, {}};
  for (auto& [index, pending] : found->second.recipients) {
    pending.is_in_flight = true;
    delivery.recipients.push_back(index);
  }
  return delivery;
}

std::optional<EntryId> HoldQueue::first_after(EntryId id) const {
  auto found = entries_.upper_bound(id);
  if (found == entries_.end()) return std::nullopt;
  return found->first;
}

void HoldQueue::remove(EntryId id, std::uint32_t recipient) {
  auto found = entries_.find(id);
  if (found == entries_.end()) return;
  auto pending = found->second.recipients.find(recipient);
  if (pending == found->second.recipients.end()) return;
  std::uint64_t lane = pending->second.lane;
  found->second.recipients.erase(pending);
  --recipients_;
  // One address may stand twice in an envelope.
  bool is_still_in_lane =
      std::any_of(found->second.recipients.begin(), found->second.recipients.end(), [&](const auto& other) { return other.second.lane == lane; });
  if (found->second.recipients.empty()) entries_.erase(found);
  if (is_still_in_lane) return;
  auto line = lanes_.find(lane);
  line->second.erase(id);
  if (line->second.empty())
    lanes_.erase(line);
  else
    look_at_front(lane);
}

void HoldQueue::defer(EntryId id, std::uint32_t recipient, const std::string& reply, Time now) {
  auto found = entries_.find(id);
  if (found == entries_.end()) return;
  auto pending = found->second.recipients.find(recipient);
  if (pending == found->second.recipients.end()) return;
  Pending& one = pending->second;
  one.is_in_flight = false;
  one.reply = reply;
  Span wait = options_.retry_min * (1U << std::min(one.attempts, 10U));
  ++one.attempts;
  one.due = now + std::min(wait, std::max(options_.retry_max, options_.retry_min));
  deferred_.emplace(one.due, id);
}

void HoldQueue::put_back(const Delivery& delivery) {
  auto found = entries_.find(delivery.id);
  if (found == entries_.end()) return;
  for (std::uint32_t index : delivery.recipients) {
    auto pending = found->second.recipients.find(index);
    if (pending != found->second.recipients.end()) pending->second.is_in_flight = false;
  }
  ready_.insert(delivery.id);
}

void HoldQueue::interrupted(const Delivery& delivery, const std::string& why, Time now) {
  auto found = entries_.find(delivery.id);
  if (found == entries_.end()) return;
  for (std::uint32_t index : delivery.recipients) {
    auto pending = found->second.recipients.find(index);
    if (pending == found->second.recipients.end()) continue;
    if (std::exchange(pending->second.was_interrupted, true)) defer(delivery.id, index, why, now);
  }
  put_back(delivery);
}

void HoldQueue::retry_now(EntryId id) {
  auto first = id == 0 ? entries_.begin() : entries_.find(id);
  auto last = id == 0 || first == entries_.end() ? entries_.end() : std::next(first);
  for (; first != last; ++first) {
    for (auto& [index, pending] : first->second.recipients) pending.due = Time{};
    ready_.insert(first->first);
  }
}

bool HoldQueue::is_in_flight(EntryId id) const {
  auto found = entries_.find(id);
  return found != entries_.end() &&
         std::any_of(found->second.recipients.begin(), found->second.recipients.end(), [](const auto& one) { return one.second.is_in_flight; });
}

std::optional<EntryId> HoldQueue::oldest() const {
  if (entries_.empty()) return std::nullopt;
  return entries_.begin()->first;
}

std::optional<Time> HoldQueue::next_due() const {
  if (deferred_.empty()) return std::nullopt;
  return deferred_.begin()->first;
}

std::size_t HoldQueue::blocked(Time now) const {
  std::unordered_set<std::uint64_t> lanes;
  for (const auto& [due, id] : deferred_) {
    auto found = entries_.find(id);
    if (found == entries_.end()) continue;
    for (const auto& [index, one] : found->second.recipients)
      if (one.due > now && is_front(id, one.lane)) lanes.insert(one.lane);
  }
  if (lanes.empty()) return 0;
  return static_cast<std::size_t>(std::count_if(entries_.begin(), entries_.end(), [&](const auto& entry) {
    const auto& recipients = entry.second.recipients;
    return std::all_of(recipients.begin(), recipients.end(), [&](const auto& one) { return lanes.count(one.second.lane) > 0; });
  }));
}

std::vector<HoldQueue::Waiting> HoldQueue::waiting(EntryId id) const {
  std::vector<Waiting> list;
  auto found = entries_.find(id);
  if (found == entries_.end()) return list;
  for (const auto& [index, one] : found->second.recipients) list.push_back({index, one.attempts, one.reply, one.is_in_flight, one.due});
  return list;
}

}  // namespace holdfast::failover
