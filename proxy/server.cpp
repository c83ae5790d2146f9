#include "proxy/server.h"

#include <event2/event.h>
#include <fmt/format.h>
#include <sys/resource.h>
#include <sysexits.h>

#include <algorithm>
#include <csignal>
#include <filesystem>
#include <future>
#include <thread>

#include "proxy/acceptor.h"
#include "proxy/admin.h"
#include "proxy/journal_access.h"
#include "proxy/accounts.h"
#include "proxy/flag_file.h"
#include "proxy/imap_session.h"
#include "proxy/ldap_sync.h"
#include "proxy/log.h"
#include "proxy/maintenance.h"
#include "proxy/people.h"
#include "proxy/session.h"
#include "journal/write_record.h"

namespace holdfast::proxy {
namespace {

int exit_code(const Error& error) {
  switch (error.code) {
    case ErrorCode::busy:
    case ErrorCode::no_space:
    case ErrorCode::unavailable:
      return EX_TEMPFAIL;
    case ErrorCode::io:
      return EX_IOERR;
    case ErrorCode::corrupt:
      return EX_DATAERR;
    default:
      return EX_CONFIG;
  }
}

int give_up(const Error& error) {
  log(LogLevel::error, "start", {{"problem", error.message}});
  return exit_code(error);
}

Result<std::shared_ptr<const Settings>> load_settings(const std::string& path) {
  Result<Config> config = load_config(path);
  if (!config) return config.error();
  auto tls = Tls::load(config->tls);
  if (!tls) return tls.error();
  return std::shared_ptr<const Settings>(new Settings{std::move(*config), std::move(*tls)});
}

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
};

struct UpstreamHealth {
  bool is_healthy = true;
  std::string last_error;
};

class Server {
 public:
  Server(std::string config_path, std::shared_ptr<const Settings> settings, journal::Journal& journal)
      : config_path_(std::move(config_path)),
        settings_(std::move(settings)),
        control_(journal, resolver_, journal.take_store(), [this](const std::string& route) { tell_sessions(route); }),
        ldap_(control_.directory()),
        shared_{journal, resolver_, control_, {}, {1}, {0}, {0}} {}

  int run();

 private:
  Status start_listeners(const Config& config);
  Status open_mailboxes();
  Status forget_in_mailboxes(const std::vector<journal::RecordId>& entries);
  Admin::Answer set_account(const nlohmann::ordered_json& body);
  Status open_http();
  Status open_admin();
  Status import_directory(const Config& config);
  void tell_sessions(const std::string& route);
  void set_all(failover::Mode mode, const char* signal);
  void watch_names(const Config& config);
  void reload();
  void drain();
  void on_tick();
  void watch_flag(const Config& config);
  Admin::Answer status();
  Maintenance::Outcome prune(std::int64_t before_us, const std::string& by, const std::string& reason);
  std::map<std::string, std::vector<UpstreamHealth>> health();

  static void on_signal(evutil_socket_t signal, short, void* self);
  static void on_timer(evutil_socket_t, short, void* self) { static_cast<Server*>(self)->on_tick(); }

  std::string config_path_;
  std::shared_ptr<const Settings> settings_;
  Resolver resolver_;
  Control control_;
  LdapSync ldap_;
  Shared shared_;
  std::unique_ptr<failover::MailboxStore> mailbox_store_;
  std::unique_ptr<FlagFile> flag_file_;
  std::vector<std::unique_ptr<Running>> workers_;
  std::unique_ptr<event_base, decltype(&event_base_free)> base_{nullptr, &event_base_free};
  std::unique_ptr<Admin> admin_, http_;
  Clock::time_point started_ = Clock::now();
  Clock::time_point stop_by_{};
  bool is_draining_ = false;
  Clock::time_point next_prune_ = Clock::now();
  Maintenance maintenance_;
};

/// Every connection takes two descriptors; the soft limit is often far below the hard one.
void raise_descriptor_limit(const Config& config) {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  rlim_t wanted = 2 * config.limits.connections + 200;
  limit.rlim_cur = std::min(limit.rlim_max, std::max(limit.rlim_cur, wanted));
  ::setrlimit(RLIMIT_NOFILE, &limit);
  if (limit.rlim_cur < wanted)
    log(LogLevel::warning, "start", {{"problem", fmt::format("limits.connections needs {} file descriptors, but the system allows {}; raise LimitNOFILE", wanted, limit.rlim_cur)}});
}

void Server::watch_names(const Config& config) {
  for (const RouteConfig& route : config.routes)
    for (const HostPort& upstream : route.upstreams)
      if (!resolver_.watch(upstream.host))
        log(LogLevel::warning, "dns", {{"host", upstream.host}, {"problem", "no address found; trying again every minute"}});
}

/// Brings the workers' listening sockets in line with the configuration. All sockets are opened before any is closed: when
/// one cannot be, nothing changes.
Status Server::start_listeners(const Config& config) {
  std::vector<std::vector<std::unique_ptr<Acceptor>>> opened(workers_.size());
  auto has = [](const Running& running, const ListenerConfig& listener) {
    return std::find(running.listeners.begin(), running.listeners.end(), listener) != running.listeners.end();
  };
  std::vector<std::pair<std::size_t, std::pair<ListenerConfig, FileDescriptor>>> sockets;
  for (const ListenerConfig& listener : config.listeners) {
    for (std::size_t i = 0; i < workers_.size(); ++i) {
      if (!workers_[i]->serves(listener, mailbox_store_ != nullptr) || has(*workers_[i], listener)) continue;
      Result<FileDescriptor> socket = listen_on(listener);
      if (!socket) return socket.error();
      sockets.emplace_back(i, std::pair(listener, std::move(*socket)));
    }
  }
  for (auto& [index, pair] : sockets) {
    Running* running = workers_[index].get();
    auto socket = std::make_shared<FileDescriptor>(std::move(pair.second));
    running->worker.loop.post([running, listener = pair.first, socket] {
      running->acceptors.push_back(std::make_unique<Acceptor>(running->worker, listener, std::move(*socket)));
    });
  }
  for (const auto& running : workers_) {
    Running* one = running.get();
    one->listeners = config.listeners;
    one->worker.loop.post([one, listeners = config.listeners] {
      std::erase_if(one->acceptors, [&](const auto& acceptor) {
        return std::find(listeners.begin(), listeners.end(), acceptor->listener()) == listeners.end();
      });
    });
  }
  return {};
}

int Server::run() {
  const Config& config = settings_->config;
  raise_descriptor_limit(config);
  watch_names(config);
  base_.reset(event_base_new());
  control_.configure(settings_);
  if (Status started = control_.start(); !started) return give_up(started.error());
  if (Status imported = import_directory(config); !imported) return give_up(imported.error());
  ldap_.configure(config.directory.ldap);
  watch_flag(config);
  // A core is left to the journal's writer: with a loop on each, the loops are what delays its commits.
  std::size_t threads = config.threads ? config.threads : std::max(2U, std::thread::hardware_concurrency()) - 1;
  for (std::size_t i = 0; i < threads; ++i) workers_.push_back(std::make_unique<Running>(shared_, settings_));
  if (Status opened = open_mailboxes(); !opened) log(LogLevel::error, "mailbox", {{"problem", opened.error().message}, {"result", "there are no emergency mailboxes; mail goes on"}});
  if (Status started = start_listeners(config); !started) return give_up(started.error());
  if (Status opened = open_admin(); !opened) return give_up(opened.error());
  if (Status opened = open_http(); !opened) return give_up(opened.error());
  std::vector<std::unique_ptr<event, decltype(&event_free)>> events;
  for (int signal : {SIGTERM, SIGINT, SIGHUP, SIGUSR1, SIGUSR2}) {
    events.emplace_back(evsignal_new(base_.get(), signal, &Server::on_signal, this), &event_free);
    event_add(events.back().get(), nullptr);
  }
  events.emplace_back(event_new(base_.get(), -1, EV_PERSIST, &Server::on_timer, this), &event_free);
  timeval second{0, 250000};
  event_add(events.back().get(), &second);

  for (const auto& running : workers_) running->thread = std::thread([loop = &running->worker.loop] { loop->run(); });
  std::string addresses;
  for (const ListenerConfig& listener : config.listeners) addresses += (addresses.empty() ? "" : " ") + to_string(listener.address);
  log(LogLevel::info, "ready", {{"listening", addresses}, {"journal", config.journal.path}, {"entries", shared_.journal.entries()}, {"threads", threads}});

  // What an interruption left of an erasure is done now.
  (void)maintenance_.start([this](const Maintenance::OnProgress& on_progress) -> Maintenance::Outcome {
    auto finished = shared_.journal.erase({}, "", "", on_progress);
    if (!finished) log(LogLevel::error, "erased", {{"problem", finished.error().message}});
    return nlohmann::ordered_json::object();
  });

  event_base_dispatch(base_.get());

  flag_file_.reset();
  control_.stop();
  for (const auto& running : workers_) running->worker.loop.post([loop = &running->worker.loop] { loop->stop(); });
  for (const auto& running : workers_) running->thread.join();
  log(LogLevel::info, "stopped", {{"sessions_cut", shared_.connections.all()}});
  return EX_OK;
}

void Server::on_signal(evutil_socket_t signal, short, void* self) {
  auto* server = static_cast<Server*>(self);
  if (signal == SIGHUP) return server->reload();
  if (signal == SIGUSR1) return server->set_all(failover::Mode::hold, "SIGUSR1");
  if (signal == SIGUSR2) return server->set_all(failover::Mode::automatic, "SIGUSR2");
  server->drain();
}

void Server::set_all(failover::Mode mode, const char* signal) {
  auto changed = control_.set_mode("", mode, fmt::format("signal {}", signal), mode == failover::Mode::hold ? "hold forced" : "given back to auto");
  if (!changed) log(LogLevel::error, "failover", {{"problem", changed.error().message}});
}

/// Called on the control thread.
void Server::tell_sessions(const std::string& route) {
  for (const auto& running : workers_)
    running->worker.loop.post([worker = &running->worker, route] {
      for (auto& [session, unused] : worker->sessions) session->primary_is_out(route);
    });
}

void Server::watch_flag(const Config& config) {
  flag_file_.reset();
  if (config.flag_file.empty()) return control_.set_flag(false, config.flag_file);
  flag_file_ = std::make_unique<FlagFile>(base_.get(), config.flag_file, [this](bool is_there) { control_.set_flag(is_there, settings_->config.flag_file); });
}

/// A loop of their own for the people who read: a long search keeps nobody's mail.
Status Server::open_mailboxes() {
  auto store = failover::MailboxStore::open(shared_.journal.path(), shared_.journal.base_key(), journal::Environment::Mode::write);
  if (!store) return store.error();
  mailbox_store_ = std::move(*store);
  auto running = std::make_unique<Running>(shared_, settings_);
  running->worker.mailboxes = std::make_shared<MailboxService>(*mailbox_store_, shared_.journal, control_);
  workers_.push_back(std::move(running));
  shared_.journal.on_erase([this](const std::vector<journal::RecordId>& entries) { return forget_in_mailboxes(entries); });
  return {};
}

/// On the mailboxes' own loop, between two commands of theirs; waits for it.
Status Server::forget_in_mailboxes(const std::vector<journal::RecordId>& entries) {
  Worker& worker = workers_.back()->worker;
  auto done = std::make_shared<std::promise<Status>>();
  worker.loop.post([service = worker.mailboxes, entries, done] { done->set_value(service->forget(entries)); });
  auto answer = done->get_future();
  constexpr auto patience = std::chrono::seconds(30);
  if (answer.wait_for(patience) != std::future_status::ready) return Error{ErrorCode::unavailable, "the mailboxes do not answer"};
  return answer.get();
}

/// Adds an account, or changes what is said of it.
Admin::Answer Server::set_account(const nlohmann::ordered_json& body) {
  if (!mailbox_store_) return Error{ErrorCode::unavailable, "the mailboxes could not be opened; see the daemon's log"};
  auto changed = apply_account_change(*mailbox_store_, body);
  if (!changed) return changed.error();
  log(LogLevel::warning, "account", {{"address", body.value("address", "")}, {"change", *changed}});
  return nlohmann::ordered_json{{"change", *changed}};
}

Status Server::import_directory(const Config& config) {
  if (config.directory.file.empty()) return {};
  auto people = read_people_file(config.directory.file);
  if (!people) return people.error();
  log(LogLevel::info, "directory", {{"imported", people->size()}, {"file", config.directory.file}});
  control_.directory().import(std::move(*people));
  return {};
}

void Server::reload() {
  auto loaded = load_settings(config_path_);
  if (loaded) {
    watch_names((*loaded)->config);
    control_.configure(*loaded);
    if (Status imported = import_directory((*loaded)->config); !imported) loaded = imported.error();
  }
  if (loaded) {
    if (Status started = start_listeners((*loaded)->config); !started) loaded = started.error();
  }
  if (!loaded) {
    log(LogLevel::error, "reload", {{"result", "the old configuration stays"}, {"problem", loaded.error().message}});
    return;
  }
  std::vector<std::string> list = changes(settings_->config, (*loaded)->config);
  settings_ = *loaded;
  configure_log(settings_->config.log_format, settings_->config.log_level);
  watch_flag(settings_->config);
  ldap_.configure(settings_->config.directory.ldap);
  for (const auto& running : workers_) {
    Worker* worker = &running->worker;
    worker->loop.post([worker, settings = settings_] {
      worker->settings = settings;
      worker->pool.sweep(true);
    });
  }
  if (list.empty()) list.emplace_back("nothing changed; certificates were read again");
  for (const std::string& change : list) log(LogLevel::info, "reload", {{"result", change}});
}

void Server::drain() {
  if (is_draining_) {  // asked twice: now
    stop_by_ = Clock::now();
    return;
  }
  is_draining_ = true;
  stop_by_ = Clock::now() + settings_->config.shutdown_grace;
  log(LogLevel::info, "stopping", {{"sessions", shared_.connections.all()}, {"grace", to_text(settings_->config.shutdown_grace)}});
  for (const auto& running : workers_) {
    Running* one = running.get();
    one->worker.loop.post([one] {
      one->acceptors.clear();
      one->worker.is_draining = true;
      for (auto& [session, unused] : one->worker.sessions) session->drain();
      if (one->worker.mailboxes)
        one->worker.mailboxes->stop();
    });
  }
}

/// Whole segments, with a line in the log each.
Maintenance::Outcome Server::prune(std::int64_t before_us, const std::string& by, const std::string& reason) {
  auto pruned = shared_.journal.prune(before_us, by, reason);
  if (!pruned) return pruned.error();
  for (std::uint32_t number : *pruned) log(LogLevel::warning, "pruned", {{"segment", number}, {"by", by}, {"reason", reason}});
  return nlohmann::ordered_json{{"segments", *pruned}};
}

void Server::on_tick() {
  Duration retention = settings_->config.journal.retention;
  if (retention > Duration(0) && Clock::now() >= next_prune_) {
    next_prune_ = Clock::now() + std::min<Duration>(retention, std::chrono::minutes(10));
    std::int64_t before_us = journal::now_us() - std::chrono::duration_cast<std::chrono::microseconds>(retention).count();
    (void)maintenance_.start([this, before_us, reason = "older than journal.retention: " + to_text(retention)](const Maintenance::OnProgress&) {
      Maintenance::Outcome outcome = prune(before_us, "retention", reason);
      if (!outcome) log(LogLevel::error, "pruned", {{"problem", outcome.error().message}});
      return outcome;
    });
  }
  for (const auto& running : workers_)
    running->worker.loop.post([worker = &running->worker] {
      worker->pool.sweep(worker->is_draining);
      if (worker->mailboxes) worker->mailboxes->look(*worker->settings, worker->loop.now());
    });
  if (is_draining_ && (shared_.connections.all() == 0 || Clock::now() >= stop_by_)) event_base_loopbreak(base_.get());
}

/// What the workers see of each upstream; a worker that does not answer in time is left out.
std::map<std::string, std::vector<UpstreamHealth>> Server::health() {
  using Health = std::map<std::string, std::vector<UpstreamHealth>>;
  auto answers = std::make_shared<std::vector<std::promise<Health>>>(workers_.size());
  for (std::size_t i = 0; i < workers_.size(); ++i) {
    Worker* worker = &workers_[i]->worker;
    worker->loop.post([worker, answers, i, settings = settings_] {
      Health mine;
      for (const RouteConfig& route : settings->config.routes)
        if (const failover::UpstreamOrder* order = worker->pool.order_of(route.name))
          for (const auto& state : order->states()) mine[route.name].push_back({state.is_healthy, state.last_error});
      (*answers)[i].set_value(std::move(mine));
    });
  }
  Health all;
  Clock::time_point patience = Clock::now() + std::chrono::milliseconds(300);
  for (auto& answer : *answers) {
    auto future = answer.get_future();
    if (future.wait_until(patience) != std::future_status::ready) continue;
    for (auto& [route, states] : future.get()) {
      std::vector<UpstreamHealth>& seen = all[route];
      seen.resize(std::max(seen.size(), states.size()));
      for (std::size_t k = 0; k < states.size(); ++k)
        if (!states[k].is_healthy) seen[k] = states[k];
    }
  }
  return all;
}

Admin::Answer Server::status() {
  auto routes = control_.status();
  if (!routes) return routes.error();
  auto seen = health();
  for (auto& route : *routes) {
    const std::vector<UpstreamHealth>& states = seen[route["name"].get<std::string>()];
    for (std::size_t k = 0; k < route["upstreams"].size() && k < states.size(); ++k) {
      if (states[k].is_healthy) continue;
      route["upstreams"][k]["healthy"] = false;
      route["upstreams"][k]["last_error"] = states[k].last_error;
    }
  }
  nlohmann::ordered_json listeners = nlohmann::ordered_json::array();
  for (const ListenerConfig& listener : settings_->config.listeners) listeners.push_back(to_string(listener.address));
  journal::WriterState writer = shared_.journal.writer().state();
  return nlohmann::ordered_json{{"routes", *routes},
          {"journal",
           {{"entries", shared_.journal.entries()},
            {"bytes", shared_.journal.bytes()},
            {"last_id", writer.last_id},
            {"oldest", format_time(shared_.journal.oldest_us())},
            {"path", settings_->config.journal.path},
            {"segment", writer.segment},
            {"writable", writer.is_working},
            {"last_error", writer.last_error},
            {"bypassed", shared_.bypassed.load()}}},
          {"recipients_known", control_.directory().size()},
          {"ldap", ldap_.state()},
          {"listeners", listeners},
          {"connections", shared_.connections.all()},
          {"accepted", shared_.accepted.load()},
          {"version", HOLDFAST_VERSION},
          {"uptime_s", std::chrono::duration_cast<std::chrono::seconds>(Clock::now() - started_).count()}};
}

/// What operators may ask and say on the admin socket.
/// What programs of this machine may read: the state, and the address book.
Status Server::open_http() {
  if (!settings_->config.admin_http) return {};
  auto http = Admin::open_http(base_.get(), *settings_->config.admin_http);
  if (!http) return http.error();
  http_ = std::move(*http);
  http_->on("/status", [this](const Admin::Request&) { return status(); });
  http_->on("/address-book", [this](const Admin::Request&) { return address_book(control_.directory().list()); });
  return {};
}

Status Server::open_admin() {
  if (settings_->config.admin_socket.empty()) return {};
  auto admin = Admin::open(base_.get(), settings_->config.admin_socket);
  if (!admin) return admin.error();
  admin_ = std::move(*admin);
  using Request = Admin::Request;
  auto text = [](const Request& request, const char* key) { return request.body.value(key, std::string()); };
  auto number = [](const Request& request, const char* key) { return request.body.value(key, std::uint64_t{0}); };
  admin_->on("/status", [this](const Request&) { return status(); });
  admin_->on("/failover", [this, text](const Request& request) -> Admin::Answer {
    std::optional<failover::Mode> mode = failover::parse_mode(text(request, "mode"));
    std::string route = text(request, "route");
    if (!mode) return Error{ErrorCode::invalid, "the mode is hold, pass or auto"};
    if (!route.empty() && !find_route(settings_->config, route))
      return Error{ErrorCode::not_found, fmt::format("there is no route named \"{}\"", route)};
    return control_.set_mode(route, *mode, "user " + request.user, text(request, "reason"));
  });
  admin_->on("/queue/list", [this, text, number](const Request& request) {
    return control_.queue_list(text(request, "route"), std::max<std::uint64_t>(1, number(request, "limit")));
  });
  admin_->on("/queue/retry", [this, number](const Request& request) { return control_.queue_retry(number(request, "id")); });
  admin_->on("/queue/drop", [this, number, text](const Request& request) {
    return control_.queue_drop(number(request, "id"), "user " + request.user, text(request, "reason"));
  });
  admin_->on("/journal/erase", [this](const Request& request) -> Admin::Answer {
    auto ids = request.body.at("ids").get<std::vector<journal::RecordId>>();
    std::string reason = request.body.at("reason").get<std::string>();
    return maintenance_.start([this, ids, by = "user " + request.user, reason](const Maintenance::OnProgress& on_progress) -> Maintenance::Outcome {
      // What is not held has nothing to be dropped; what is on its way at this moment must arrive first.
      for (journal::RecordId id : ids) {
        auto dropped = control_.queue_drop(id, by, "erased: " + reason);
        if (!dropped) return dropped.error();
        if (dropped->contains("is_delivering"))
          return Error{ErrorCode::busy, fmt::format("entry {} is being delivered at this moment: nothing was erased; try again", id)};
      }
      auto erased = shared_.journal.erase(ids, by, reason, on_progress);
      if (!erased) return erased.error();
      if (!ids.empty()) log(LogLevel::warning, "erased", {{"entries", erased->entries}, {"segments", erased->segments}, {"record", erased->record}, {"by", by}, {"reason", reason}});
      return nlohmann::ordered_json{{"entries", erased->entries}, {"segments", erased->segments}, {"record", erased->record}};
    });
  });
  admin_->on("/journal/access", [this](const Request& request) -> Admin::Answer {
    journal::AccessRecord access;
    access.time_us = journal::now_us();
    access.by = "user " + request.user;
    access.command = request.body.at("command").get<std::string>();
    access.reason = request.body.at("reason").get<std::string>();
    access.entries = request.body.at("entries").get<std::uint64_t>();
    access.examples = request.body.at("ids").get<std::vector<journal::RecordId>>();
    auto written = journal::write_record(shared_.journal.writer(), journal::RecordKind::access, journal::encode(access));
    if (!written) return written.error();
    log(LogLevel::info, "access", {{"by", access.by}, {"command", access.command}, {"entries", access.entries}, {"reason", access.reason}});
    return nlohmann::ordered_json{{"record", *written}};
  });
  admin_->on("/journal/legal-hold", [this](const Request& request) -> Admin::Answer {
    auto record = journal::from_hex(request.body.at("legal_hold").get<std::string>());
    auto hold = journal::decode_legal_hold(record.value_or(""));
    if (!hold) return Error{ErrorCode::invalid, "this is no legal hold"};
    hold->by = "user " + request.user;
    auto written = journal::write_record(shared_.journal.writer(), journal::RecordKind::legal_hold, journal::encode(*hold));
    if (!written) return written.error();
    log(LogLevel::warning, "legal hold", {{"name", hold->name}, {"set", hold->is_set}, {"by", hold->by}, {"reason", hold->reason}});
    return nlohmann::ordered_json{{"record", *written}};
  });
  admin_->on("/journal/prune", [this](const Request& request) -> Admin::Answer {
    auto before = request.body.at("before").get<std::int64_t>();
    return maintenance_.start([this, before, by = "user " + request.user, reason = request.body.at("reason").get<std::string>()](const Maintenance::OnProgress&) { return prune(before, by, reason); });
  });
  admin_->on("/journal/rekey", [this](const Request& request) -> Admin::Answer {
    auto new_key = request.body.at("new_key_file").get<std::string>();
    bool finishes = request.body.at("finish").get<bool>();
    std::string reason = request.body.at("reason").get<std::string>();
    return maintenance_.start([this, new_key, finishes, by = "user " + request.user, reason](const Maintenance::OnProgress&) -> Maintenance::Outcome {
      auto finished = shared_.journal.rekey(settings_->config.journal.key, new_key, finishes, by, reason);
      if (!finished) return finished.error();
      log(LogLevel::warning, "master key changed", {{"finished", *finished}, {"by", by}, {"reason", reason}});
      return nlohmann::ordered_json{{"finished", *finished}};
    });
  });
  admin_->on("/job", [this](const Request& request) { return maintenance_.state(request.body.value("job", std::uint64_t{0})); });
  admin_->on("/journal/seal", [this](const Request&) { return nlohmann::ordered_json{{"segment", shared_.journal.seal()}}; });
  admin_->on("/mailbox/list", [this](const Request&) -> Admin::Answer {
    if (!mailbox_store_) return Error{ErrorCode::unavailable, "the mailboxes could not be opened; see the daemon's log"};
    return accounts_to_json(*mailbox_store_);
  });
  admin_->on("/mailbox/set", [this](const Request& request) { return set_account(request.body); });
  admin_->on("/directory/list", [this](const Request&) { return people_to_json(control_.directory().list()); });
  admin_->on("/directory/sync", [this](const Request&) -> Admin::Answer {
    if (std::uint64_t run = ldap_.request()) return nlohmann::ordered_json{{"run", run}};
    return Error{ErrorCode::invalid, "directory.ldap is not configured, so there is nothing to sync with"};
  });
  admin_->on("/directory/ldap", [this](const Request&) { return ldap_.state(); });
  admin_->on("/directory/import", [this](const Request& request) -> Admin::Answer {
    std::vector<failover::Directory::Person> people = people_from_json(request.body);
    std::size_t count = people.size();
    control_.directory().import(std::move(people));
    log(LogLevel::info, "directory", {{"imported", count}, {"by", request.user}});
    return nlohmann::ordered_json{{"imported", count}};
  });
  return {};
}

}  // namespace

int serve(const std::string& config_path) {
  std::signal(SIGPIPE, SIG_IGN);
  // Until they are listened to, operators' signals must not end the process.
  std::signal(SIGUSR1, SIG_IGN);
  std::signal(SIGUSR2, SIG_IGN);
  auto settings = load_settings(config_path);
  if (!settings) return give_up(settings.error());
  const Config& config = (*settings)->config;
  configure_log(config.log_format, config.log_level);
  auto journal = open_journal(config, [](bool is_error, const std::string& what) {
    log(is_error ? LogLevel::error : LogLevel::info, "journal", {{is_error ? "problem" : "note", what}});
  }, config.journal.compress);
  if (!journal) return give_up(journal.error());
  int code = Server(config_path, *settings, **journal).run();
  journal->reset();
  return code;
}

}  // namespace holdfast::proxy
