// Server: what the admin socket and admin.http answer.
#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <mutex>

#include "journal/canonical_address.h"
#include "journal/write_record.h"
#include "proxy/accounts.h"
#include "proxy/imap_session.h"
#include "proxy/log.h"
#include "proxy/metrics.h"
#include "proxy/people.h"
#include "proxy/running_server.h"
#include "proxy/units.h"

namespace holdfast::proxy {
namespace {

using Request = Admin::Request;

std::string text(const Request& request, const char* key) { return request.body.value(key, std::string()); }
std::uint64_t number(const Request& request, const char* key) { return request.body.value(key, std::uint64_t{0}); }
std::string user_of(const Request& request) { return "user " + request.user(); }

}  // namespace

/// Adds an account, changes what is said of it, or takes it away. Whoever is logged in there must do so again.
Admin::Answer Server::set_account(const Json& body) {
  if (!mailbox_store_) return Error{ErrorCode::unavailable, "the mailboxes could not be opened; see the daemon's log"};
  std::lock_guard one_at_a_time(accounts_mutex_);
  auto changed = apply_account_change(*mailbox_store_, body, [this](const std::string& address) {
    return ask_mailboxes([address](MailboxService& service) { return service.remove(address); });
  });
  if (!changed) return changed.error();
  Worker& mailboxes = workers_.back()->worker;
  mailboxes.loop.post(
      [service = mailboxes.mailboxes, address = journal::canonical_address(body.value("address", ""))] { service->shut_out(address); });
  log(LogLevel::warning, "account", {{"address", body.value("address", "")}, {"change", *changed}});
  return Json{{"change", *changed}};
}

/// Who may log in, and who is; or a "problem". Null when the mailboxes could not be opened.
Json Server::mailboxes_state(std::shared_ptr<const Settings> settings) {
  if (!mailbox_store_) return nullptr;
  auto state = std::make_shared<Json>();
  Status answered = ask_mailboxes([state, settings, &store = *mailbox_store_](MailboxService& service) -> Status {
    std::set<std::string> people;
    for (const ImapSession* session : service.sessions)
      if (!session->person().empty()) people.insert(session->person());
    auto accounts = store.count_accounts();
    if (!accounts) return accounts.error();
    *state = {{"problem", ""},
              {"open_routes", service.gate.open_routes(*settings, Clock::now())},
              {"sessions", service.sessions.size()},
              {"people", people.size()},
              {"accounts", *accounts}};
    return {};
  });
  if (!answered) return {{"problem", answered.error().message}};
  return *state;
}

/// Null where none is configured.
Json Server::feed_state() const {
  if (feed_) return feed_->state();
  if (feed_problem_.empty() || !settings_->config.mailbox.feed) return nullptr;
  return {{"to", "lmtp://" + to_string(*settings_->config.mailbox.feed)}, {"put_off", 0}, {"problem", feed_problem_}};
}

/// What belongs to the main thread is looked at now; the control loop and the mailboxes are asked without it.
Admin::Work Server::status() {
  Json certificates = Json::array();
  for (const Tls::Shown& one : settings_->tls->shown())
    certificates.push_back({{"file", one.file},
                            {"expires", format_time(one.expires_us)},
                            {"expires_in_s", (one.expires_us - journal::now_us()) / 1'000'000},
                            {"caution", caution_about(one, journal::now_us())}});
  Json listeners = Json::array();
  for (const ListenerConfig& listener : settings_->config.listeners) listeners.push_back(to_string(listener.address));
  journal::WriterState writer = shared_.journal.writer().state();
  Json state = {{"routes", nullptr},
                {"journal",
                 {{"entries", shared_.journal.entries()},
                  {"bytes", shared_.journal.bytes()},
                  {"room", journal_watch_.room().left},
                  {"nearly_full", journal_watch_.room().is_nearly_full},
                  {"commits", writer.commits},
                  {"commit_s", std::chrono::duration<double>(writer.commit_time).count()},
                  {"slow_commit_ms", journal_watch_.slow_commit().count()},
                  {"last_id", writer.last_id},
                  {"oldest", format_time(shared_.journal.oldest_us())},
                  {"path", settings_->config.journal.path},
                  {"segment", writer.segment},
                  {"segment_problem", writer.roll_problem},
                  {"writable", writer.is_working && writer.refuses_why.empty()},
                  {"last_error", writer.is_working && !writer.refuses_why.empty() ? writer.refuses_why : writer.last_error},
                  {"keys_problem", journal_watch_.keys_problem()},
                  {"retention_overdue", retention_.overdue()},
                  {"bypassed", shared_.bypassed.load()}}},
                {"mailboxes", nullptr},
                {"recipients_known", control_.directory().size()},
                {"ldap", ldap_.state()},
                {"feed", feed_state()},
                {"certificates", certificates},
                {"listeners", listeners},
                {"connections", shared_.connections.all()},
                {"accepted", shared_.accepted.load()},
                {"version", HOLDFAST_VERSION},
                {"uptime_s", std::chrono::duration_cast<std::chrono::seconds>(std::chrono::steady_clock::now() - started_).count()}};
  return [this, state = std::move(state), settings = settings_]() mutable -> Admin::Answer {
    state["routes"] = routes_state();
    state["mailboxes"] = mailboxes_state(settings);
    return std::move(state);
  };
}

/// With the connections to each route's primary, of all loops.
Json Server::routes_state() {
  Json routes = control_.status();
  for (auto& route : routes) {
    std::uint64_t connections = 0, waiting = 0;
    for (const auto& upstream : route["upstreams"]) {
      auto room = occupancy_.of(*parse_host_port(upstream["address"].get<std::string>()));
      connections += room->connections.load(std::memory_order_relaxed);
      waiting += room->waiting.load(std::memory_order_relaxed);
    }
    route["connections"] = connections;
    route["waiting"] = waiting;
  }
  return routes;
}

/// What programs of this machine may read: the state, also as metrics, and the address book.
Status Server::open_http() {
  if (!settings_->config.admin_http) return {};
  auto http = Admin::open_http(loop_, *settings_->config.admin_http);
  if (!http) return http.error();
  http_ = std::move(*http);
  http_->on_prepared("/status", [this](const Request&) { return status(); });
  http_->on_prepared("/metrics", [this](const Request&) { return status(); }, {metrics_type, &metrics_of});
  http_->on_waiting("/address-book", [this](const Request&) { return address_book(control_.directory().list()); });
  return {};
}

/// What operators may ask and say on the admin socket.
Status Server::open_admin() {
  if (settings_->config.admin_socket.empty()) return {};
  auto admin = Admin::open(loop_, settings_->config.admin_socket);
  if (!admin) return admin.error();
  admin_ = std::move(*admin);
  answer_on_delivery();
  answer_on_journal();
  answer_on_people();
  return {};
}

void Server::answer_on_delivery() {
  admin_->on_prepared("/status", [this](const Request&) { return status(); });
  admin_->on_prepared("/failover", [this](const Request& request) { return set_mode(request); });
  admin_->on_waiting("/queue/list", [this](const Request& request) {
    constexpr std::uint64_t page = 500;  // so many do not keep the control loop from its work
    return control_.queue_list(text(request, "route"), text(request, "from_route"), number(request, "after"),
                               std::clamp<std::uint64_t>(number(request, "limit"), 1, page));
  });
  admin_->on_waiting("/queue/show", [this](const Request& request) { return control_.queue_show(number(request, "id")); });
  admin_->on_waiting("/queue/retry", [this](const Request& request) { return control_.queue_retry(number(request, "id")); });
  admin_->on_waiting("/queue/drop", [this](const Request& request) {
    return control_.queue_drop({number(request, "id")}, user_of(request), text(request, "reason"));
  });
}

Admin::Work Server::set_mode(const Request& request) {
  std::optional<failover::Mode> mode = failover::parse_mode(text(request, "mode"));
  std::string route = text(request, "route");
  bool is_known = route.empty() || find_route(settings_->config, route);
  return [=, this]() -> Admin::Answer {
    if (!mode) return Error{ErrorCode::invalid, "the mode is hold, pass or auto"};
    if (!is_known) return Error{ErrorCode::not_found, fmt::format("there is no route named \"{}\"", route)};
    return control_.set_mode(route, *mode, user_of(request), text(request, "reason"));
  };
}

void Server::answer_on_journal() {
  admin_->on("/journal/erase", [this](const Request& request) { return erase(request); });
  admin_->on_waiting("/journal/access", [this](const Request& request) { return record_access(request); });
  admin_->on_waiting("/journal/legal-hold", [this](const Request& request) { return record_legal_hold(request); });
  admin_->on("/journal/prune", [this](const Request& request) -> Admin::Answer {
    auto before = request.body.at("before").get<std::int64_t>();
    std::string reason = request.body.at("reason").get<std::string>();
    return maintenance_.start(
        [this, before, request, reason](const Maintenance::OnProgress&) { return retention_.prune(before, user_of(request), reason); });
  });
  admin_->on("/journal/rekey", [this](const Request& request) { return rekey(request); });
  admin_->on_waiting("/journal/commit", [this](const Request&) {
    constexpr auto patience = std::chrono::milliseconds(200);  // with a slow disk
    return Json{{"committed", shared_.journal.writer().commit_now(patience)}};
  });
  admin_->on_waiting("/journal/seal", [this](const Request&) { return Json{{"segment", shared_.journal.seal()}}; });
  admin_->on("/job", [this](const Request& request) { return maintenance_.state(number(request, "job")); });
}

void Server::answer_on_people() {
  admin_->on_waiting("/mailbox/list", [this](const Request&) -> Admin::Answer {
    if (!mailbox_store_) return Error{ErrorCode::unavailable, "the mailboxes could not be opened; see the daemon's log"};
    return accounts_to_json(*mailbox_store_);
  });
  admin_->on_waiting("/mailbox/set", [this](const Request& request) { return set_account(request.body); });
  admin_->on_waiting("/directory/list", [this](const Request&) { return people_to_json(control_.directory().list()); });
  admin_->on("/directory/sync", [this](const Request&) -> Admin::Answer {
    if (std::uint64_t run = ldap_.request()) return Json{{"run", run}};
    return Error{ErrorCode::invalid, "directory.ldap is not configured, so there is nothing to sync with"};
  });
  admin_->on("/directory/ldap", [this](const Request&) { return ldap_.state(); });
  admin_->on_waiting("/directory/import", [this](const Request& request) -> Admin::Answer {
    std::vector<failover::Directory::Person> people = people_from_json(request.body.at("people"));
    for (auto& person : people) person.source = failover::Source::imported;
    std::size_t count = people.size();
    control_.directory().import(std::move(people));
    log(LogLevel::info, "directory", {{"imported", count}, {"by", request.user()}});
    return Json{{"imported", count}};
  });
  admin_->on_prepared("/directory/remove", [this](const Request& request) { return remove_from_directory(request); });
}

Admin::Work Server::remove_from_directory(const Request& request) {
  return [this, request, file = settings_->config.directory.file]() -> Admin::Answer {
    std::string address = text(request, "address");
    auto source = control_.directory().remove(address);
    if (!source) return Error{ErrorCode::not_found, fmt::format("{}: the directory has no such address", address)};
    if (*source == failover::Source::ldap)
      return Error{ErrorCode::invalid, fmt::format("{} comes from LDAP, and would be back with the next sync: remove it there", address)};
    bool comes_back = *source == failover::Source::imported && !file.empty();
    log(LogLevel::info, "directory", {{"removed", 1}, {"by", request.user()}});
    return Json{{"removed", address}, {"comes_back_from", comes_back ? file : ""}};
  };
}

Admin::Answer Server::erase(const Request& request) {
  auto ids = request.body.at("ids").get<std::vector<journal::RecordId>>();
  std::string reason = request.body.at("reason").get<std::string>();
  bool with_held = request.body.at("with_held").get<bool>();
  return maintenance_.start([this, ids, request, reason, with_held](const Maintenance::OnProgress& on_progress) -> Maintenance::Outcome {
    const std::string by = user_of(request);
    auto release = [&]() -> Status {
      std::vector<failover::EntryId> held;
      for (journal::RecordId id : ids) {
        auto found = shared_.journal.held(id);
        if (!found) return found.error();
        if (*found) held.push_back(id);
      }
      if (held.empty()) return {};
      if (!with_held)
        return Error{ErrorCode::busy, fmt::format("entry {} is held for delivery since a moment ago: nothing was erased; try again", held.front())};
      auto dropped = control_.queue_drop(held, by, "erased: " + reason);
      if (!dropped) return dropped.error();
      if (dropped->contains("delivering")) return Error{ErrorCode::busy, (*dropped)["problem"].get<std::string>() + ". Nothing was erased"};
      return {};
    };
    auto erased = shared_.journal.erase(ids, by, reason, on_progress, release);
    if (!erased) return erased.error();
    if (!ids.empty())
      log(LogLevel::warning, "erased",
          {{"entries", erased->entries}, {"segments", erased->segments}, {"record", erased->record}, {"by", by}, {"reason", reason}});
    return Json{{"entries", erased->entries}, {"segments", erased->segments}, {"record", erased->record}};
  });
}

Admin::Answer Server::record_access(const Request& request) {
  journal::AccessRecord access;
  access.time_us = journal::now_us();
  access.by = user_of(request);
  access.command = request.body.at("command").get<std::string>();
  access.reason = request.body.at("reason").get<std::string>();
  access.entries = request.body.at("entries").get<std::uint64_t>();
  access.examples = request.body.at("ids").get<std::vector<journal::RecordId>>();
  auto written = journal::write_record(shared_.journal.writer(), journal::RecordKind::access, journal::encode(access));
  if (!written) return written.error();
  log(LogLevel::info, "access", {{"by", access.by}, {"command", access.command}, {"entries", access.entries}, {"reason", access.reason}});
  return Json{{"record", *written}};
}

Admin::Answer Server::record_legal_hold(const Request& request) {
  auto record = journal::from_hex(request.body.at("legal_hold").get<std::string>());
  auto hold = journal::decode_legal_hold(record.value_or(""));
  if (!hold) return Error{ErrorCode::invalid, "this is no legal hold"};
  hold->by = user_of(request);
  auto written = shared_.journal.record_legal_hold(*hold);
  if (!written) return written.error();
  log(LogLevel::warning, "legal hold", {{"name", hold->name}, {"set", hold->is_set}, {"by", hold->by}, {"reason", hold->reason}});
  return Json{{"record", *written}};
}

Admin::Answer Server::rekey(const Request& request) {
  auto new_key = request.body.at("new_key_file").get<std::string>();
  bool finishes = request.body.at("finish").get<bool>(), is_lost = request.body.at("lost").get<bool>();
  auto how = finishes ? journal::Rekey::finish : is_lost ? journal::Rekey::replace_lost : journal::Rekey::change;
  std::string reason = request.body.at("reason").get<std::string>();
  // The key's source is copied: a reload may replace the settings meanwhile.
  return maintenance_.start(
      [this, key = settings_->config.journal.key, new_key, how, request, reason](const Maintenance::OnProgress&) -> Maintenance::Outcome {
        const std::string by = user_of(request);
        auto finished = shared_.journal.rekey(key, new_key, how, by, reason);
        if (!finished) return finished.error();
        log(LogLevel::warning, "master key changed", {{"finished", *finished}, {"by", by}, {"reason", reason}});
        return Json{{"finished", *finished}};
      });
}

}  // namespace holdfast::proxy
