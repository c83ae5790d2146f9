#include "proxy/server.h"

#include <event2/event.h>
#include <fmt/format.h>
#include <malloc.h>
#include <sys/resource.h>
#include <sysexits.h>

#include <algorithm>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <future>
#include <thread>
#include <utility>

#include "journal/backup.h"
#include "journal/files.h"
#include "journal/write_record.h"
#include "proxy/cautions.h"
#include "proxy/command.h"
#include "proxy/config_changes.h"
#include "proxy/imap_session.h"
#include "proxy/journal_access.h"
#include "proxy/log.h"
#include "proxy/mime.h"
#include "proxy/people.h"
#include "proxy/running_server.h"
#include "proxy/session.h"
#include "proxy/transparency.h"
#include "proxy/units.h"

namespace holdfast::proxy {
namespace {

int exit_code(const Error& error) {
  switch (error.code) {
    case ErrorCode::busy:
    case ErrorCode::no_space:
    case ErrorCode::unavailable: return EX_TEMPFAIL;
    case ErrorCode::io: return EX_IOERR;
    case ErrorCode::corrupt: return EX_DATAERR;
    default: return EX_CONFIG;
  }
}

int give_up(const Error& error) {
  log(LogLevel::error, "start", {{"problem", error.message}});
  return exit_code(error);
}

Result<std::shared_ptr<const Settings>> load_settings(const std::string& path) {
  Result<Config> config = load_config(path);
  if (!config) return config.error();
  const auto& routes = config->routes;
  if (std::any_of(routes.begin(), routes.end(), [](const RouteConfig& route) { return route.identity == Identity::transparent; }))
    if (Status may = may_connect_from_anywhere(); !may) return Error{may.error().code, path + ": " + may.error().message};
  auto tls = Tls::load(config->tls);
  if (!tls) return tls.error();
  return std::shared_ptr<const Settings>(new Settings{std::move(*config), std::move(*tls)});
}

/// A core is left to the journal's writer: with a loop on each, the loops are what delays its commits.
std::size_t threads_of(const Config& config) { return config.threads ? config.threads : std::max(2U, std::thread::hardware_concurrency()) - 1; }

/// Every connection takes two descriptors, its own and the one to the primary; without the second, the primary would be taken
/// for dead. Raises the soft limit, which is often far below the hard one. Returns how many connections there is room for.
std::uint64_t raise_descriptor_limit(const Config& config) {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) return config.limits.connections;
  rlim_t others = 200 + config.routes.size() * threads_of(config) * config.reuse.connections;
  rlim_t wanted = 2 * config.limits.connections + others;
  limit.rlim_cur = std::min(limit.rlim_max, std::max(limit.rlim_cur, wanted));
  ::setrlimit(RLIMIT_NOFILE, &limit);
  if (limit.rlim_cur >= wanted) return config.limits.connections;
  std::uint64_t capacity = std::max<rlim_t>(limit.rlim_cur > 2 * others ? (limit.rlim_cur - others) / 2 : limit.rlim_cur / 4, 1);
  log(LogLevel::warning, "start",
      {{"problem",
        fmt::format(
            "limits.connections needs {} file descriptors, but the system allows {}: only {} connections are taken at once; raise LimitNOFILE",
            wanted, limit.rlim_cur, capacity)}});
  return capacity;
}

}  // namespace

void Server::watch_names(const Config& config, std::chrono::milliseconds patience) {
  std::vector<std::string> hosts;
  for (const RouteConfig& route : config.routes)
    for (const HostPort& upstream : route.upstreams) hosts.push_back(upstream.host);
  for (const std::string& host : resolver_.watch(hosts, patience))
    log(LogLevel::warning, "dns", {{"host", host}, {"problem", "there is no address for it yet"}});
}

/// Opens what is not listened on yet; clients wait in the system's queue until use().
Result<std::vector<Server::NewListener>> Server::open_listeners(const Config& config) {
  std::vector<NewListener> opened;
  auto has = [](const Running& running, const ListenerConfig& listener) {
    return std::find(running.listeners.begin(), running.listeners.end(), listener) != running.listeners.end();
  };
  auto is_ours = [&](const ListenerConfig& listener) {
    return std::any_of(workers_.begin(), workers_.end(), [&](const auto& running) {
      return std::any_of(running->listeners.begin(), running->listeners.end(),
                         [&](const ListenerConfig& one) { return one.address == listener.address; });
    });
  };
  for (const ListenerConfig& listener : config.listeners)
    if (Status free = is_ours(listener) || kept_.has(listener.address) ? Status() : check_free(listener); !free) return free.error();
  for (const ListenerConfig& listener : config.listeners) {
    std::vector<Running*> serving;
    for (const auto& running : workers_)
      if (running->serves(listener, mailbox_store_ != nullptr) && !has(*running, listener)) serving.push_back(running.get());
    if (serving.empty()) continue;
    auto sockets = sockets_for(listener, serving.size());
    if (!sockets) return sockets.error();
    for (std::size_t i = 0; i < sockets->size(); ++i)
      opened.push_back({serving[i % serving.size()], listener, std::make_shared<FileDescriptor>(std::move((*sockets)[i]))});
  }
  return opened;
}

/// All that were kept, since clients wait in each, and new ones.
Result<std::vector<FileDescriptor>> Server::sockets_for(const ListenerConfig& listener, std::size_t least) {
  std::vector<FileDescriptor> sockets = kept_.use(listener.address);
  bool has_kept = !sockets.empty();
  while (sockets.size() < least) {
    Result<FileDescriptor> socket = listen_on(listener);
    // The system lets only the same user's share an address: otherwise two workers take clients from one.
    FileDescriptor shared = !socket && has_kept ? duplicate(sockets.front()) : FileDescriptor();
    if (shared) socket = std::move(shared);
    if (!socket) return socket.error();
    sockets.push_back(std::move(*socket));
  }
  return sockets;
}

/// Brings the workers' listeners in line with the configuration. From now on the service manager keeps them over a restart.
void Server::use(const std::vector<NewListener>& opened, const Config& config) {
  std::vector<FileDescriptor> to_be_kept;
  for (const NewListener& one : opened)
    if (FileDescriptor socket = duplicate(*one.socket)) to_be_kept.push_back(std::move(socket));
  service_manager_.keep(std::move(to_be_kept));
  for (const NewListener& one : opened)
    one.running->worker.loop.post(
        [one] { one.running->acceptors.push_back(std::make_unique<Acceptor>(one.running->worker, one.listener, std::move(*one.socket))); });
  for (const auto& running : workers_) {
    Running* one = running.get();
    one->listeners = config.listeners;
    one->worker.loop.post([one, listeners = config.listeners] {
      std::erase_if(one->acceptors, [&](const auto& acceptor) {
        bool is_wanted = std::find(listeners.begin(), listeners.end(), acceptor->listener()) != listeners.end();
        if (!is_wanted) stop_listening(acceptor->socket());
        return !is_wanted;
      });
    });
  }
}

/// The loops go: the journal's writer must have told them all by then.
Server::~Server() {
  names_.stop();
  control_.stop();
  shared_.journal.finish_writing();
}

int Server::run() {
  const Config& config = settings_->config;
  shared_.connections.set_capacity(raise_descriptor_limit(config));
  constexpr auto patience = std::chrono::seconds(5);
  watch_names(config, patience);
  alerter_.set_command(config.alert_command);
  control_.configure(settings_);
  if (Status started = control_.start(); !started) return give_up(started.error());
  auto people = read_directory(config);
  bool has_copy = control_.directory().count(failover::Source::imported) > 0;
  if (!people && !has_copy) return give_up(people.error());
  if (!people)
    log(LogLevel::error, "directory",
        {{"problem", people.error().message}, {"remedy", "the last good copy stays in use; repair the file, and SIGHUP"}});
  if (people) import_directory(std::move(*people), config);
  ldap_.configure(config.directory.ldap);
  watch_flag(config);
  std::size_t threads = threads_of(config);
  for (std::size_t i = 0; i < threads; ++i) workers_.push_back(std::make_unique<Running>(shared_, settings_));
  if (Status opened = open_mailboxes(); !opened)
    log(LogLevel::error, "mailbox", {{"problem", opened.error().message}, {"result", "there are no emergency mailboxes; mail goes on"}});
  auto listeners = open_listeners(config);
  if (!listeners) return give_up(listeners.error());
  if (Status opened = open_admin(); !opened) return give_up(opened.error());
  if (Status opened = open_http(); !opened) return give_up(opened.error());
  use(*listeners, config);
  kept_.settle();
  std::vector<std::unique_ptr<event, decltype(&event_free)>> events;
  for (int signal : {SIGTERM, SIGINT, SIGHUP, SIGUSR1, SIGUSR2}) {
    events.emplace_back(evsignal_new(loop_.base(), signal, &Server::on_signal, this), &event_free);
    event_add(events.back().get(), nullptr);
  }
  reload_event_.reset(event_new(loop_.base(), -1, EV_PERSIST, &Server::on_reload, this));
  events.emplace_back(event_new(loop_.base(), -1, EV_PERSIST, &Server::on_timer, this), &event_free);
  timeval quarter_of_a_second{0, 250000};
  event_add(events.back().get(), &quarter_of_a_second);

  for (const auto& running : workers_)
    running->thread = std::thread([worker = &running->worker] { worker->loop.run(worker->mailboxes ? "mailboxes" : "loop"); });
  std::string addresses;
  for (const ListenerConfig& listener : config.listeners) addresses += (addresses.empty() ? "" : " ") + to_string(listener.address);
  log(LogLevel::info, "ready",
      {{"listening", addresses}, {"journal", config.journal.path}, {"entries", shared_.journal.entries()}, {"threads", threads}});

  service_manager_.ready();

  // What an interruption left of an erasure is done now.
  (void)maintenance_.start([this](const Maintenance::OnProgress& on_progress) -> Maintenance::Outcome {
    auto finished = shared_.journal.erase({}, "", "", on_progress);
    if (!finished) log(LogLevel::error, "erased", {{"problem", finished.error().message}});
    return Json::object();
  });

  if (config.mailbox.feed) {
    auto feed = Feed::start(shared_.journal, config);
    if (feed)
      feed_ = std::move(*feed);
    else
      log(LogLevel::error, "feed", {{"problem", feed_problem_ = feed.error().message}});
  }

  loop_.run("holdfast");  // as the process is called

  // While the mailboxes still answer it.
  shared_.journal.interrupt();
  maintenance_.wait();
  feed_.reset();
  flag_file_.reset();
  control_.stop();
  for (const auto& running : workers_) running->worker.loop.post([loop = &running->worker.loop] { loop->stop(); });
  for (const auto& running : workers_) running->thread.join();
  log(LogLevel::info, "stopped", {{"sessions_cut", shared_.connections.all()}});
  return EX_OK;
}

void Server::on_signal(evutil_socket_t signal, short, void* self) {
  auto* server = static_cast<Server*>(self);
  // Of many at once, one is enough, and others are to have their turn between two.
  if (signal == SIGHUP) return event_active(server->reload_event_.get(), 0, 0);
  if (signal == SIGUSR1) return server->set_all(failover::Mode::hold, "SIGUSR1");
  if (signal == SIGUSR2) return server->set_all(failover::Mode::automatic, "SIGUSR2");
  server->drain();
}

void Server::on_reload(evutil_socket_t, short, void* self) {
  auto* server = static_cast<Server*>(self);
  server->service_manager_.reloading();
  server->reload();
  server->service_manager_.ready();
}

void Server::set_all(failover::Mode mode, const char* signal) {
  control_.set_all(mode, fmt::format("signal {}", signal), mode == failover::Mode::hold ? "hold forced" : "given back to auto");
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
  flag_file_ =
      std::make_unique<FlagFile>(loop_.base(), config.flag_file, [this](bool is_there) { control_.set_flag(is_there, settings_->config.flag_file); });
}

/// On a backup that was put back, numbers after its end are given anew: nothing that somebody remembers may mean them.
Status Server::notice_restoration(failover::MailboxStore& store) {
  const std::string mark = journal::backup_mark(shared_.journal.path());
  bool is_marked = std::filesystem::exists(mark);
  auto is_ahead = store.is_ahead_of(shared_.journal.last_before());
  if (!is_ahead) return is_ahead.error();
  if (!is_marked && !*is_ahead) return {};
  if (Status renewed = store.start_again_after(shared_.journal.last_before()); !renewed) return renewed;
  std::int64_t of_us = 0;
  if (std::ifstream file(mark); file) file >> of_us;
  std::string reason = of_us > 0 ? "a backup of " + format_time(of_us) + " was put back" : "an older journal was put back";
  journal::AccessRecord record{journal::now_us(), "holdfast", "restored", reason, 0, {}};
  auto written = journal::write_record(shared_.journal.writer(), journal::RecordKind::access, journal::encode(record));
  if (!written) return written.error();
  log(LogLevel::warning, "restored", {{"reason", reason}, {"result", "mail programs load their folders anew"}});
  std::error_code failure;
  std::filesystem::remove(mark, failure);
  if (failure) return Error{ErrorCode::permission, mark + ": " + failure.message() + "; remove it"};
  return {};
}

/// A loop of their own for the people who read: a long search keeps nobody's mail.
Status Server::open_mailboxes() {
  auto store = failover::MailboxStore::open(shared_.journal.path(), shared_.journal.base_key(), journal::Environment::Mode::write);
  if (!store) return store.error();
  if (Status renewed = notice_restoration(**store); !renewed) return renewed;
  mailbox_store_ = std::move(*store);
  auto running = std::make_unique<Running>(shared_, settings_);
  running->worker.mailboxes = std::make_shared<MailboxService>(*mailbox_store_, shared_.journal, control_);
  workers_.push_back(std::move(running));
  shared_.journal.on_erase([this](const std::vector<journal::RecordId>& entries) {
    return ask_mailboxes([entries](MailboxService& service) { return service.forget(entries); }, std::chrono::seconds(30));
  });
  return {};
}

/// On the mailboxes' own loop, between two commands of theirs; waits for it.
Status Server::ask_mailboxes(std::function<Status(MailboxService&)> question, std::chrono::milliseconds patience) {
  Worker& worker = workers_.back()->worker;
  auto done = std::make_shared<std::promise<Status>>();
  worker.loop.post([service = worker.mailboxes, question = std::move(question), done] { done->set_value(question(*service)); });
  auto answer = done->get_future();
  if (answer.wait_for(patience) != std::future_status::ready)
    return Error{ErrorCode::unavailable, "the mailboxes do not answer: they wait for the disk, or a long search keeps them busy"};
  return answer.get();
}

/// The people in the configured file; nothing when none is configured.
Result<std::optional<Server::People>> Server::read_directory(const Config& config) {
  if (config.directory.file.empty()) return std::optional<People>();
  auto people = read_people_file(config.directory.file);
  if (!people) return people.error();
  return std::optional(std::move(*people));
}

void Server::import_directory(std::optional<People> people, const Config& config) {
  if (!people) return;
  log(LogLevel::info, "directory", {{"imported", people->size()}, {"file", config.directory.file}});
  control_.directory().import(std::move(*people));
}

/// All that may fail is done before anything changes.
void Server::reload() {
  auto refuse = [](const Error& error) { log(LogLevel::error, "reload", {{"result", "the old configuration stays"}, {"problem", error.message}}); };
  auto loaded = load_settings(config_path_);
  if (!loaded) return refuse(loaded.error());
  const Config& config = (*loaded)->config;
  auto people = read_directory(config);
  if (!people) return refuse(people.error());
  auto listeners = open_listeners(config);
  if (!listeners) return refuse(listeners.error());

  std::vector<std::string> list = changes(settings_->config, config);
  settings_ = *loaded;
  constexpr auto patience = std::chrono::milliseconds(300);  // operators may be asking for the state meanwhile
  watch_names(config, patience);
  control_.configure(settings_);
  import_directory(std::move(*people), config);
  shared_.connections.set_capacity(raise_descriptor_limit(config));
  configure_log(config.log);
  alerter_.set_command(config.alert_command);
  watch_flag(config);
  ldap_.configure(config.directory.ldap);
  for (const auto& running : workers_) {
    Worker* worker = &running->worker;
    worker->loop.post([worker, settings = settings_] {
      worker->settings = settings;
      worker->pool.sweep(true);
    });
  }
  use(*listeners, config);
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
  control_.finish_deliveries();
  service_manager_.stopping();
  log(LogLevel::info, "stopping", {{"sessions", shared_.connections.all()}, {"grace", to_text(settings_->config.shutdown_grace)}});
  for (const auto& running : workers_) {
    Running* one = running.get();
    one->worker.loop.post([one] {
      one->acceptors.clear();
      one->worker.is_draining = true;
      for (auto& [session, unused] : one->worker.sessions) session->drain();
      if (one->worker.mailboxes) one->worker.mailboxes->stop();
    });
  }
}

/// Alive is a server whose loops of mail all turn; a long search in a mailbox is no reason to end it.
void Server::report_to_service_manager() {
  if (std::none_of(workers_.begin(), workers_.end(), [](const auto& running) { return running->is_asked.load(); })) {
    service_manager_.alive();
    for (const auto& running : workers_) {
      if (running->worker.mailboxes) continue;
      running->is_asked = true;
      running->worker.loop.post([asked = &running->is_asked] { *asked = false; });
    }
  }
  std::string state;
  for (const RouteConfig& route : settings_->config.routes) {
    const RouteBoard& board = control_.board(route.name);
    std::uint64_t held = board.held;
    if (board.state == failover::State::pass && held == 0) continue;
    state += fmt::format("{}{}: {}, {} held", state.empty() ? "" : "; ", route.name, failover::to_string(board.state), held);
  }
  service_manager_.show(is_draining_ ? "finishes what is under way" : state.empty() ? "mail passes" : state);
}

void Server::alert_of_route(const std::string& route, const failover::RouteState::Status& status) {
  std::string state(failover::to_string(status.state)), mode(failover::to_string(status.mode));
  std::string text =
      fmt::format("route {}: {} (mode {}), by {}{}", route, upper(state), mode, status.by, status.reason.empty() ? "" : ": " + status.reason);
  alerter_.tell({{"HOLDFAST_ALERT", text},
                 {"HOLDFAST_EVENT", "state"},
                 {"HOLDFAST_TIME", format_time(status.since_us)},
                 {"HOLDFAST_ROUTE", route},
                 {"HOLDFAST_STATE", state},
                 {"HOLDFAST_MODE", mode},
                 {"HOLDFAST_BY", status.by},
                 {"HOLDFAST_REASON", status.reason}});
}

void Server::alert_of_held(const std::string& route, const std::string& what) {
  alerter_.tell({{"HOLDFAST_ALERT", "route " + route + ": " + what},
                 {"HOLDFAST_EVENT", "held"},
                 {"HOLDFAST_TIME", format_time(journal::now_us())},
                 {"HOLDFAST_ROUTE", route}});
}

void Server::alert_of(const std::string& event, const std::string& what) {
  alerter_.tell({{"HOLDFAST_ALERT", event + ": " + what}, {"HOLDFAST_EVENT", event}, {"HOLDFAST_TIME", format_time(journal::now_us())}});
}

void Server::on_tick() {
  report_to_service_manager();
  journal_watch_.look(settings_->config.journal);
  certificate_watch_.look(*settings_->tls);
  retention_.look(settings_->config.journal.retention, maintenance_);
  for (const auto& running : workers_)
    running->worker.loop.post([worker = &running->worker] {
      worker->pool.sweep(worker->is_draining);
      if (worker->mailboxes) worker->mailboxes->look(worker->settings, worker->loop.now());
    });
  bool is_done = shared_.connections.all() == 0 && control_.has_every_answer();
  if (is_draining_ && (is_done || Clock::now() >= stop_by_)) loop_.stop();
}

int serve(const std::string& config_path) {
  KeptSockets kept;
  ClockKeeper clock;
  std::signal(SIGPIPE, SIG_IGN);
  // What is this large is given back when it is freed. glibc's own mark would rise with what was freed before, and leave a
  // burst's memory in pieces.
  ::mallopt(M_MMAP_THRESHOLD, 1 << 20);
  ::mallopt(M_TRIM_THRESHOLD, 2 << 20);
  // Until they are listened to, operators' signals must not end the process.
  std::signal(SIGUSR1, SIG_IGN);
  std::signal(SIGUSR2, SIG_IGN);
  auto settings = load_settings(config_path);
  if (!settings) return give_up(settings.error());
  const Config& config = (*settings)->config;
  configure_log(config.log);
  auto journal = open_journal(config, [](bool is_error, const std::string& what) {
    log(is_error ? LogLevel::error : LogLevel::info, "journal", {{is_error ? "problem" : "note", what}});
  });
  if (!journal) return give_up(journal.error());
  if (Status loaded = load_mime(); !loaded) return give_up(loaded.error());
  for (const Caution& one : cautions_about(config)) log(LogLevel::warning, "start", {{one.key, one.value}, {"problem", one.problem}});
  int code = Server(config_path, *settings, **journal, kept).run();
  journal->reset();
  return code;
}

}  // namespace holdfast::proxy
