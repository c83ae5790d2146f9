// The resolver: host names of upstreams to addresses, on a thread of its own so that no loop waits for DNS.
//
// Addresses are looked up when a name is first seen and again every minute; the last good answer is kept while DNS is gone.
#pragma once

#include <condition_variable>
#include <map>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "proxy/network.h"

namespace holdfast::proxy {

class Resolver {
 public:
  Resolver();
  ~Resolver();

  /// Looks a name up now and keeps it fresh from then on; waits for the answer. For start and reload, not for loops.
  /// IP addresses need no look-up. Returns false when there is no answer yet.
  bool watch(const std::string& host);

  /// The known addresses; empty when there are none. Thread-safe, does not wait.
  std::vector<SocketAddress> addresses(const HostPort& host) const;

 private:
  void run();
  static std::vector<SocketAddress> look_up(const std::string& host);

  mutable std::mutex mutex_;
  std::condition_variable wake_;
  std::map<std::string, std::vector<SocketAddress>> known_;
  bool is_stopping_ = false;
  std::thread thread_;
};

}  // namespace holdfast::proxy
