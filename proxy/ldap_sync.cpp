#include "proxy/ldap_sync.h"

#include <fmt/format.h>
#include <pthread.h>

#include <algorithm>
#include <set>

#include "journal/catalog.h"
#include "journal/record.h"
#include "proxy/ldap_client.h"
#include "proxy/log.h"
#include "proxy/units.h"

namespace holdfast::proxy {
namespace {

using failover::LdapEntry;

/// After a failure it is tried again this soon, if the interval is not shorter.
constexpr Duration retry_interval = std::chrono::minutes(1);

/// No longer than this what was missed stays unknown.
constexpr std::int64_t full_interval_us = 24LL * 60 * 60 * 1'000'000;

/// That most of so few leave at once is nothing unusual.
constexpr std::size_t fewest_to_doubt = 20;

std::vector<std::string> attributes_of(const LdapConfig& config) {
  std::vector<std::string> list{"mail", "displayName", "cn", "telephoneNumber", "mobile", "member", "uniqueMember", "modifyTimestamp", "whenChanged"};
  list.insert(list.end(), config.alias_attributes.begin(), config.alias_attributes.end());
  return list;
}

/// RFC 4515. The time is in the server's own words (RFC 4517 3.3.13), and what changed in that second is read
/// again.
std::string changed_since(const LdapConfig& config, const std::string& attribute, const std::string& time) {
  std::string filter = config.filter.starts_with("(") ? config.filter : "(" + config.filter + ")";
  return fmt::format("(&{}({}>={}))", filter, attribute, time);
}

}  // namespace

LdapSync::LdapSync(failover::Directory& directory) : directory_(directory), thread_([this] { run(); }) {}

LdapSync::~LdapSync() {
  {
    std::lock_guard lock(mutex_);
    should_stop_ = true;
  }
  wake_.notify_one();
  thread_.join();
}

void LdapSync::configure(const std::optional<LdapConfig>& config) {
  {
    std::lock_guard lock(mutex_);
    if (config && config_ == config) return;
    config_ = config;
    is_configured_anew_ = true;
  }
  wake_.notify_one();
}

std::uint64_t LdapSync::request() {
  std::uint64_t number;
  {
    std::lock_guard lock(mutex_);
    if (!config_) return 0;
    // A run that is going on may have read already what has changed since.
    number = runs_ + (is_running_ ? 2 : 1);
    wanted_ = std::max(wanted_, number);
  }
  wake_.notify_one();
  return number;
}

Json LdapSync::state() const {
  std::lock_guard lock(mutex_);
  if (!config_) return nullptr;
  return {{"url", config_->url}, {"runs", runs_},      {"last_run", how_}, {"last_success", last_success_us_ ? format_time(last_success_us_) : ""},
          {"people", people_},   {"problem", problem_}};
}

void LdapSync::run() {
  pthread_setname_np(pthread_self(), "ldap");
  std::unique_lock lock(mutex_);
  while (!should_stop_) {
    if (is_configured_anew_) {
      is_configured_anew_ = false;
      problem_.clear();
      newest_change_.clear();
      if (!config_) directory_.replace(failover::Source::ldap, {});
    }
    if (config_) run_once(LdapConfig(*config_), lock);
    Duration pause = !config_ ? std::chrono::hours(24) : problem_.empty() ? config_->interval : std::min(config_->interval, retry_interval);
    wake_.wait_for(lock, pause, [this] { return should_stop_ || is_configured_anew_ || (config_ && wanted_ > runs_); });
  }
}

void LdapSync::run_once(const LdapConfig& config, std::unique_lock<std::mutex>& lock) {
  is_running_ = true;
  bool is_asked_for = wanted_ > runs_;
  lock.unlock();
  std::string how;
  Status synced = sync(config, is_asked_for, how);
  lock.lock();
  is_running_ = false;
  ++runs_;
  std::string problem = synced ? std::string() : synced.error().message;
  bool is_news = problem != problem_ || (synced && last_success_us_ == 0);
  problem_ = problem;
  if (synced) {
    how_ = how;
    people_ = entries_.size();
    last_success_us_ = journal::now_us();
    if (is_news) log(LogLevel::info, "ldap", {{"entries", people_}, {"run", how}});
  } else if (is_news && !should_stop_) {
    log(LogLevel::error, "ldap", {{"problem", problem}, {"remedy", "the last good copy stays in use"}});
  }
}

bool LdapSync::must_read_all(const std::string& server) const {
  std::int64_t now = journal::now_us();
  return newest_change_.empty() || server != server_ || now < last_full_us_ || now - last_full_us_ >= full_interval_us;
}

Status LdapSync::sync(const LdapConfig& config, bool is_asked_for, std::string& how) {
  auto client = LdapClient::connect(config, should_stop_);
  if (!client) return client.error();
  std::map<std::string, LdapEntry> now;
  std::string server = (*client)->server();
  bool is_full = is_asked_for || must_read_all(server);
  std::size_t read = 0;
  if (!is_full) {
    auto names = (*client)->search(config.filter, {});
    if (!names) return names.error();
    auto changed = (*client)->search(changed_since(config, change_attribute_, newest_change_), attributes_of(config));
    if (!changed) return changed.error();
    read = changed->size();
    for (LdapEntry& entry : *changed) entries_[entry.dn] = std::move(entry);
    for (const LdapEntry& name : *names) {
      auto known = entries_.find(name.dn);
      // A branch was renamed: what is below has new names, but has not changed.
      if (known == entries_.end())
        is_full = true;
      else
        now.insert(*known);
    }
  }
  if (is_full) {
    auto all = (*client)->search(config.filter, attributes_of(config));
    if (!all) return all.error();
    now.clear();
    read = all->size();
    for (LdapEntry& entry : *all) now[entry.dn] = std::move(entry);
  }
  std::vector<failover::Directory::Person> people = failover::people_of(now, config.alias_attributes, journal::now_us());
  if (people.empty())
    return Error{ErrorCode::unavailable, fmt::format("{}: nobody with a mail address was found; check "
                                                     "directory.ldap.base, filter, and what bind_dn may read",
                                                     config.url)};
  std::size_t known = directory_.count(failover::Source::ldap);
  bool is_doubtful = known >= fewest_to_doubt && people.size() < known / 2;
  if (is_doubtful && !is_asked_for)
    return Error{ErrorCode::unavailable, fmt::format("{}: only {} of {} people are left; check directory.ldap.base, filter, and what "
                                                     "bind_dn may read; if it is right, say so by: holdfast directory sync",
                                                     config.url, people.size(), known)};
  how = fmt::format("{}: {} read", is_full ? "full" : "incremental", read);
  entries_ = std::move(now);
  server_ = std::move(server);
  if (is_full) last_full_us_ = journal::now_us();
  newest_change_.clear();
  // Active Directory has whenChanged, and cannot search by modifyTimestamp; others have that alone.
  change_attribute_ = entries_.begin()->second.first("whenchanged").empty() ? "modifyTimestamp" : "whenChanged";
  for (const auto& [dn, entry] : entries_) newest_change_ = std::max(newest_change_, entry.first(journal::normalise(change_attribute_)));
  directory_.replace(failover::Source::ldap, std::move(people));
  return {};
}

}  // namespace holdfast::proxy
