// The running server: workers with their listeners, the control of failover, the mailboxes, the admin socket.
// server.cpp runs it, server_admin.cpp answers for it.
#pragma once

#include <event2/event.h>

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "failover/mailbox_store.h"
#include "proxy/acceptor.h"
#include "proxy/admin.h"
#include "proxy/alerter.h"
#include "proxy/certificate_watch.h"
#include "proxy/feed.h"
#include "proxy/flag_file.h"
#include "proxy/journal_watch.h"
#include "proxy/kept_sockets.h"
#include "proxy/ldap_sync.h"
#include "proxy/maintenance.h"
#include "proxy/retention.h"
#include "proxy/service_manager.h"

namespace holdfast::proxy {

/// One worker with its thread and its listening sockets.
struct Running {
  explicit Running(Shared& shared, std::shared_ptr<const Settings> settings) : worker(shared, std::move(settings)) {}
  bool serves(const ListenerConfig& listener, bool has_mailboxes) const {
    if (!has_mailboxes) return listener.role != Role::imap;
    return (listener.role != Role::mx) == (worker.mailboxes != nullptr);
  }
  Worker worker;
  std::vector<std::unique_ptr<Acceptor>> acceptors;  ///< the worker's thread's
  std::vector<ListenerConfig> listeners;             ///< what they listen on, for the main thread
  std::thread thread;
  std::atomic<bool> is_asked = false;  ///< whether its loop still turns; of one for mail
};

class Server {
 public:
  Server(std::string config_path, std::shared_ptr<const Settings> settings, journal::Journal& journal, KeptSockets& kept)
      : config_path_(std::move(config_path)),
        settings_(std::move(settings)),
        kept_(kept),
        control_(journal, resolver_, names_, occupancy_, journal.take_store(),
                 {[this](const std::string& route) { tell_sessions(route); },
                  [this](const std::string& route, const failover::RouteState::Status& status) { alert_of_route(route, status); },
                  [this](const std::string& route, const std::string& what) { alert_of_held(route, what); }}),
        ldap_(control_.directory()),
        shared_{journal, resolver_, occupancy_, control_, names_, {}, {1}, {0}, {0}},
        journal_watch_(journal, [this](const std::string& what) { alert_of("journal", what); }),
        certificate_watch_([this](const std::string& what) { alert_of("certificate", what); }),
        retention_(journal) {}
  ~Server();

  int run();

 private:
  using People = std::vector<failover::Directory::Person>;
  struct NewListener {
    Running* running;
    ListenerConfig listener;
    std::shared_ptr<FileDescriptor> socket;  ///< a task must be copyable
  };
  Result<std::vector<NewListener>> open_listeners(const Config& config);
  Result<std::vector<FileDescriptor>> sockets_for(const ListenerConfig& listener, std::size_t least);
  void use(const std::vector<NewListener>& opened, const Config& config);
  Status open_mailboxes();
  Status notice_restoration(failover::MailboxStore& store);
  Status ask_mailboxes(std::function<Status(MailboxService&)> question, std::chrono::milliseconds patience = std::chrono::milliseconds(500));
  Json mailboxes_state(std::shared_ptr<const Settings> settings);
  Json routes_state();
  Admin::Answer set_account(const Json& body);
  Status open_http();
  Status open_admin();
  void answer_on_delivery();
  void answer_on_journal();
  void answer_on_people();
  Admin::Work set_mode(const Admin::Request& request);
  Admin::Work remove_from_directory(const Admin::Request& request);
  Admin::Answer erase(const Admin::Request& request);
  Admin::Answer record_access(const Admin::Request& request);
  Admin::Answer record_legal_hold(const Admin::Request& request);
  Admin::Answer rekey(const Admin::Request& request);
  static Result<std::optional<People>> read_directory(const Config& config);
  void import_directory(std::optional<People> people, const Config& config);
  void tell_sessions(const std::string& route);
  void set_all(failover::Mode mode, const char* signal);
  void watch_names(const Config& config, std::chrono::milliseconds patience);
  void reload();
  void drain();
  void on_tick();
  void report_to_service_manager();
  void alert_of_route(const std::string& route, const failover::RouteState::Status& status);
  void alert_of_held(const std::string& route, const std::string& what);
  void alert_of(const std::string& event, const std::string& what);
  void watch_flag(const Config& config);
  Json feed_state() const;
  Admin::Work status();

  static void on_signal(evutil_socket_t signal, short, void* self);
  static void on_reload(evutil_socket_t, short, void* self);
  static void on_timer(evutil_socket_t, short, void* self) { static_cast<Server*>(self)->on_tick(); }

  std::string config_path_;
  std::shared_ptr<const Settings> settings_;
  KeptSockets& kept_;
  Resolver resolver_;
  ClientNames names_;
  Occupancy occupancy_;
  Alerter alerter_;
  Control control_;
  LdapSync ldap_;
  Shared shared_;
  std::unique_ptr<failover::MailboxStore> mailbox_store_;
  std::unique_ptr<Feed> feed_;
  std::string feed_problem_;  ///< why there is none
  std::unique_ptr<FlagFile> flag_file_;
  std::vector<std::unique_ptr<Running>> workers_;
  Loop loop_;  ///< the main thread's
  std::unique_ptr<event, decltype(&event_free)> reload_event_{nullptr, &event_free};
  std::unique_ptr<Admin> admin_, http_;
  std::mutex accounts_mutex_;  ///< two changes of an account do not mix
  std::chrono::steady_clock::time_point started_ = std::chrono::steady_clock::now();
  Clock::time_point stop_by_{};
  bool is_draining_ = false;
  JournalWatch journal_watch_;
  CertificateWatch certificate_watch_;
  Retention retention_;
  Maintenance maintenance_;
  ServiceManager service_manager_;
};

}  // namespace holdfast::proxy
