#include "proxy/worker.h"

#include <algorithm>

namespace holdfast::proxy {

bool ConnectionCounts::enter(std::uint64_t limit) {
  limit = std::min(limit, capacity_.load(std::memory_order_relaxed));
  if (all_.fetch_add(1, std::memory_order_relaxed) < limit) return true;
  leave();
  return false;
}

bool ConnectionCounts::enter_client(const std::string& address, std::uint64_t limit) {
  std::lock_guard lock(mutex_);
  std::uint64_t& count = by_client_[address];
  if (count >= limit) return false;
  ++count;
  return true;
}

void ConnectionCounts::leave_client(const std::string& address) {
  std::lock_guard lock(mutex_);
  auto found = by_client_.find(address);
  if (found != by_client_.end() && --found->second == 0) by_client_.erase(found);
}

}  // namespace holdfast::proxy
