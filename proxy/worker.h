// A worker: one loop with all that its sessions share, and the counts that all workers share.
#pragma once

#include <atomic>
#include <map>
#include <memory>
#include <mutex>
#include <string>

#include "journal/journal.h"
#include "proxy/control.h"
#include "proxy/loop.h"
#include "proxy/settings.h"
#include "proxy/upstream.h"

namespace holdfast::proxy {

class Session;
struct MailboxService;

/// Connections now, in all and by client address. Thread-safe.
class ConnectionCounts {
 public:
  /// What the system has room for, whatever the configuration allows.
  void set_capacity(std::uint64_t capacity) { capacity_.store(capacity, std::memory_order_relaxed); }
  bool enter(std::uint64_t limit);
  void leave() { all_.fetch_sub(1, std::memory_order_relaxed); }
  std::uint64_t all() const { return all_.load(std::memory_order_relaxed); }

  /// A client's place among the connections from its address, given back when it is destroyed; nothing when there are as many as may be.
  class Place;
  std::unique_ptr<Place> place_for(const std::string& address, std::uint64_t limit);

 private:
  std::atomic<std::uint64_t> all_{0}, capacity_{~std::uint64_t{0}};
  std::mutex mutex_;
  std::map<std::string, std::uint64_t> by_client_;
};

class ConnectionCounts::Place {
 public:
  Place(ConnectionCounts& counts, std::string client) : counts_(counts), client_(std::move(client)) {}
  ~Place();
  Place(const Place&) = delete;
  Place& operator=(const Place&) = delete;

 private:
  ConnectionCounts& counts_;
  const std::string client_;
};

/// What all workers share.
struct Shared {
  journal::Journal& journal;
  Resolver& resolver;
  Occupancy& occupancy;
  Control& control;
  ClientNames& names;
  ConnectionCounts connections;
  std::atomic<std::uint64_t> next_session{1};
  std::atomic<std::uint64_t> accepted{0}, bypassed{0};
};

/// Lives on its loop's thread, but for the constructor.
struct Worker {
  Worker(Shared& all, std::shared_ptr<const Settings> first) : shared(all), settings(std::move(first)), pool(loop, all.resolver, all.occupancy) {}

  Shared& shared;
  Loop loop;
  std::shared_ptr<const Settings> settings;  ///< for new sessions
  UpstreamPool pool;
  std::map<Session*, int> sessions;
  std::shared_ptr<MailboxService> mailboxes;  ///< of the worker that has the IMAP listeners
  bool is_draining = false;                   ///< sessions end at their next quiet moment
};

}  // namespace holdfast::proxy
