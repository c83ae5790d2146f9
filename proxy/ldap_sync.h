// The directory's people and groups, fetched from an LDAP server now and then, on a thread of its own.
//
// The first run reads everything; later ones what has changed since, and the names of all entries to see who is gone. Servers that are
// copies of each other learn of a change at different times, and may keep the time of the first: so everything is read again from another
// server than before, once a day, and when an operator asks. While the server is away, or answers with nobody at all, the last good copy
// stays; also when most are gone at once, until an operator asks for a run.
#pragma once

#include <atomic>
#include <condition_variable>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <thread>

#include "failover/directory.h"
#include "failover/ldap_people.h"
#include "proxy/config.h"
#include "proxy/json.h"

namespace holdfast::proxy {

class LdapSync {
 public:
  explicit LdapSync(failover::Directory& directory);
  ~LdapSync();

  /// Begins, changes or ends the syncing. When nothing is configured any more, its people leave the
  /// directory. Thread-safe.
  void configure(const std::optional<LdapConfig>& config);
  /// Asks for a run now. Returns the number that state()'s "runs" has once it is over; 0 when nothing is
  /// configured. Thread-safe.
  std::uint64_t request();
  /// {"url", "runs", "last_run" (how), "last_success", "people", "problem"}, or null when nothing is
  /// configured. Thread-safe.
  Json state() const;

 private:
  void run();
  void run_once(const LdapConfig& config, std::unique_lock<std::mutex>& lock);
  Status sync(const LdapConfig& config, bool is_asked_for, std::string& how);
  bool must_read_all(const std::string& server) const;

  failover::Directory& directory_;
  mutable std::mutex mutex_;
  std::condition_variable wake_;
  std::optional<LdapConfig> config_;
  bool is_configured_anew_ = false, is_running_ = false;
  std::uint64_t runs_ = 0, wanted_ = 0;
  std::int64_t last_success_us_ = 0;
  std::string how_, problem_;
  std::size_t people_ = 0;
  std::atomic<bool> should_stop_{false};
  // Of the thread alone.
  std::map<std::string, failover::LdapEntry> entries_;  ///< by DN
  std::string change_attribute_, newest_change_, server_;
  std::int64_t last_full_us_ = 0;
  std::thread thread_;
};

}  // namespace holdfast::proxy
