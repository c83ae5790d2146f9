#include "proxy/metrics.h"

#include <fmt/format.h>

#include <initializer_list>
#include <tuple>
#include <utility>

namespace holdfast::proxy {
namespace {

using Labels = std::initializer_list<std::pair<const char*, std::string>>;

std::string escaped(const std::string& text) {
  std::string out;
  for (char c : text) {
    if (c == '\\' || c == '"') out += '\\';
    out += c == '\n' ? std::string("\\n") : std::string(1, c);
  }
  return out;
}

class Page {
 public:
  /// What follows is of this metric.
  void begin(const char* name, const char* type, const char* help) {
    name_ = name;
    out_ += fmt::format("# HELP holdfast_{} {}\n# TYPE holdfast_{} {}\n", name, help, name, type);
  }
  void add(double value, Labels labels = {}) {
    std::string all;
    for (const auto& [label, text] : labels) all += fmt::format("{}{}=\"{}\"", all.empty() ? "" : ",", label, escaped(text));
    out_ += fmt::format("holdfast_{}{} {}\n", name_, all.empty() ? all : "{" + all + "}", value);
  }
  void one(const char* name, const char* type, const char* help, double value) {
    begin(name, type, help);
    add(value);
  }
  std::string take() { return std::move(out_); }

 private:
  const char* name_ = "";
  std::string out_;
};

constexpr const char* gauge = "gauge";
constexpr const char* counter = "counter";

void add_routes(Page& page, const Json& routes) {
  auto name = [](const Json& route) { return route["name"].get<std::string>(); };
  page.begin("route_state", gauge, "1 for the state that the route is in.");
  for (const Json& route : routes)
    for (const char* state : {"pass", "hold", "drain"}) page.add(route["state"] == state ? 1 : 0, {{"route", name(route)}, {"state", state}});
  page.begin("route_automatic", gauge, "Whether the breaker decides, and not an operator.");
  for (const Json& route : routes) page.add(route["mode"] == "auto" ? 1 : 0, {{"route", name(route)}});
  for (auto [metric, key, help] : std::initializer_list<std::tuple<const char*, const char*, const char*>>{
           {"held_messages", "held", "Messages that wait for the primary."},
           {"kept_messages", "kept_for_operator", "Messages that the primary refused for good, and that wait for an operator."},
           {"doubted_messages", "doubted", "Held messages that the primary refused for good, as all others: that is not believed."},
           {"primary_connections", "connections", "Connections to the primary."},
           {"waiting_clients", "waiting", "Who waits until the primary takes one more connection."}}) {
    page.begin(metric, gauge, help);
    for (const Json& route : routes) page.add(route[key].get<double>(), {{"route", name(route)}});
  }
  page.begin("held_expires_seconds", gauge, "Until the oldest held message expires (failover.max_hold); only where some is held.");
  for (const Json& route : routes)
    if (!route["expires_in_s"].is_null()) page.add(route["expires_in_s"].get<double>(), {{"route", name(route)}});
  page.begin("held_expires_soon", gauge, "Whether the route holds, and a fifth of failover.max_hold is left of that, or a day.");
  for (const Json& route : routes) page.add(route["expires_soon"].get<bool>() ? 1 : 0, {{"route", name(route)}});
  page.begin("held_limit_reached", gauge, "Whether no more mail is held, and senders are told 452 in a hold.");
  for (const Json& route : routes) page.add(route["limit_reached"].get<std::string>().empty() ? 0 : 1, {{"route", name(route)}});
  page.begin("messages_total", counter, "Messages that came over the relay, by what became of them, since the start.");
  for (const Json& route : routes)
    for (const auto& [outcome, count] : route["messages"].items()) page.add(count.get<double>(), {{"route", name(route)}, {"outcome", outcome}});
  page.begin("delivered_messages_total", counter, "Messages that were held and settled, since the start.");
  for (const Json& route : routes) page.add(route["delivered"].get<double>(), {{"route", name(route)}});
  page.begin("upstream_healthy", gauge, "Whether an address of the primary answers.");
  for (const Json& route : routes)
    for (const Json& upstream : route["upstreams"])
      page.add(upstream["healthy"].get<bool>() ? 1 : 0, {{"route", name(route)}, {"address", upstream["address"].get<std::string>()}});
}

void add_journal(Page& page, const Json& journal) {
  page.one("journal_writable", gauge, "Whether messages can be written down; while they cannot, clients are told 452.",
           journal["writable"].get<bool>() ? 1 : 0);
  page.one("journal_entries", gauge, "Messages in the journal.", journal["entries"].get<double>());
  page.one("journal_bytes", gauge, "Size of the journal's segments.", journal["bytes"].get<double>());
  page.one("journal_room_bytes", gauge, "What the journal may still take: what is free on its disk, or less by journal.max_size.",
           journal["room"].get<double>());
  page.one("journal_commits_total", counter, "Groups of records that were synced to the disk, since the start.", journal["commits"].get<double>());
  page.one("journal_commit_seconds_total", counter, "Time that this took, since the start.", journal["commit_s"].get<double>());
  page.one("journal_keys_in_place", gauge,
           "Whether key ring and master key are where they have to be; without them nothing can be read after a restart.",
           journal["keys_problem"].get<std::string>().empty() ? 1 : 0);
  page.one("journal_retention_overdue", gauge, "Whether mail that is older than journal.retention is still there (holdfast status tells why).",
           journal["retention_overdue"].get<std::string>().empty() ? 0 : 1);
  page.one("journal_bypassed_messages_total", counter, "Messages that passed without a copy, since the start.", journal["bypassed"].get<double>());
}

}  // namespace

std::string metrics_of(const Json& status) {
  Page page;
  page.begin("info", gauge, "What runs here.");
  page.add(1, {{"version", status["version"].get<std::string>()}});
  page.one("uptime_seconds", gauge, "Since the start.", status["uptime_s"].get<double>());
  page.one("connections", gauge, "Clients that are connected.", status["connections"].get<double>());
  page.one("accepted_connections_total", counter, "Connections of clients, since the start.", status["accepted"].get<double>());
  add_routes(page, status["routes"]);
  add_journal(page, status["journal"]);
  page.begin("certificate_expires_seconds", gauge, "Until a certificate that clients are shown expires.");
  for (const Json& one : status["certificates"]) page.add(one["expires_in_s"].get<double>(), {{"file", one["file"].get<std::string>()}});
  page.one("recipients_known", gauge, "Recipients that the directory knows to exist.", status["recipients_known"].get<double>());
  page.begin("directory_synced", gauge, "Whether the last sync with LDAP succeeded; only where it is configured.");
  if (const Json& ldap = status["ldap"]; !ldap.is_null()) page.add(ldap["problem"].get<std::string>().empty() ? 1 : 0);
  page.begin("feed_works", gauge, "Whether the mail store that is fed takes mail; only where one is configured.");
  if (const Json& feed = status["feed"]; !feed.is_null()) page.add(feed["problem"].get<std::string>().empty() ? 1 : 0);
  const Json& mailboxes = status["mailboxes"];
  if (mailboxes.contains("accounts")) {
    page.one("mailbox_accounts", gauge, "People who have an emergency mailbox.", mailboxes["accounts"].get<double>());
    page.one("mailbox_people", gauge, "People who are logged in.", mailboxes["people"].get<double>());
  }
  return page.take();
}

}  // namespace holdfast::proxy
