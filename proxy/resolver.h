// The resolver: host names of upstreams to addresses, each on a thread of its own, so that no loop waits for DNS, and no name for another
// about which DNS is silent.
//
// Addresses are looked up when a name is first seen and again every minute; the last good answer is kept while DNS is gone.
#pragma once

#include <chrono>
#include <condition_variable>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "proxy/network.h"

namespace holdfast::proxy {

class Resolver {
 public:
  ~Resolver();

  /// Looks names up now and keeps them fresh from then on; IP addresses need no look-up. Waits for the answers, but no longer than
  /// patience: for start and reload, not for loops. Returns the names for which there is no address yet.
  std::vector<std::string> watch(const std::vector<std::string>& hosts, std::chrono::milliseconds patience);

  /// The known addresses; empty when there are none. Thread-safe, does not wait.
  std::vector<SocketAddress> addresses(const HostPort& host) const;

 private:
  struct Host {
    std::vector<SocketAddress> addresses;
    bool is_asked = false;    ///< since it was last wanted fresh
    bool has_thread = false;  ///< that keeps it fresh
  };
  /// Shared with the threads, which may be waiting for an answer when we end: nobody waits for that.
  struct State {
    std::mutex mutex;
    std::condition_variable wake, answered;
    std::map<std::string, Host> hosts;
    bool is_stopping = false;
  };

  void begin_to_ask(const std::string& name, Host& host);
  static void keep_fresh(State& state, const std::string& name);
  static std::vector<SocketAddress> look_up(const std::string& host);

  const std::shared_ptr<State> state_ = std::make_shared<State>();
};

}  // namespace holdfast::proxy
