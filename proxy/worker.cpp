#include "proxy/worker.h"

#include <algorithm>

#include "failover/client_network.h"

namespace holdfast::proxy {

bool ConnectionCounts::enter(std::uint64_t limit) {
  limit = std::min(limit, capacity_.load(std::memory_order_relaxed));
  if (all_.fetch_add(1, std::memory_order_relaxed) < limit) return true;
  leave();
  return false;
}

std::unique_ptr<ConnectionCounts::Place> ConnectionCounts::place_for(const std::string& address, std::uint64_t limit) {
  std::string client = failover::client_network(address);
  std::lock_guard lock(mutex_);
  std::uint64_t& count = by_client_[client];
  if (count >= limit) return nullptr;
  ++count;
  return std::make_unique<Place>(*this, std::move(client));
}

ConnectionCounts::Place::~Place() {
  std::lock_guard lock(counts_.mutex_);
  auto found = counts_.by_client_.find(client_);
  if (found != counts_.by_client_.end() && --found->second == 0) counts_.by_client_.erase(found);
}

}  // namespace holdfast::proxy
