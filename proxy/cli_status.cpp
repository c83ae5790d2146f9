// `holdfast status`: what the daemon says of itself, for a tired person. In capitals stands what somebody should look at.
#include <fmt/format.h>
#include <sysexits.h>

#include <chrono>

#include "proxy/admin_client.h"
#include "proxy/cli.h"
#include "proxy/command.h"
#include "proxy/config.h"
#include "proxy/log.h"

namespace holdfast::proxy {
namespace {

std::string text(const Json& value) { return value.get<std::string>(); }
std::uint64_t count(const Json& value) { return value.get<std::uint64_t>(); }
double mebibytes(const Json& bytes) { return static_cast<double>(count(bytes)) / (1 << 20); }

void print_counts(const Json& route) {
  if (std::uint64_t held = count(route["held"])) {
    std::string left = route["left_s"].is_number() ? fmt::format(", about {} s left", count(route["left_s"])) : "";
    fmt::print("  held {} messages, {} being delivered, {:.0f} a second{}\n", held, count(route["delivering"]), route["per_second"].get<double>(),
               left);
  }
  if (std::uint64_t kept = count(route["kept_for_operator"]))
    fmt::print("  {} KEPT FOR YOU: refused, and the sender may not be told; see holdfast queue list\n", kept);
  if (std::uint64_t doubted = count(route["doubted"]))
    fmt::print(
        "  {} REFUSED, NOT BELIEVED: the primary refuses one held message after the other for good; these stay held, see holdfast queue list\n",
        doubted);
  if (std::uint64_t twice = count(route["possible_duplicates"])) fmt::print("  {} possible duplicates since the start\n", twice);
  if (route["expires_soon"].get<bool>())
    fmt::print("  EXPIRES SOON: the oldest held message in {}, and the others after it\n",
               roughly(std::chrono::seconds(route["expires_in_s"].get<std::int64_t>())));
  if (std::string limit = text(route["limit_reached"]); !limit.empty())
    fmt::print("  LIMIT REACHED: {}: no more mail is held, senders are told 452\n", limit);
}

void print_route(const Json& route) {
  std::string reason = text(route["reason"]);
  fmt::print("route {}: {} (mode {}) since {}, by {}{}\n", text(route["name"]), upper(text(route["state"])), text(route["mode"]),
             text(route["since"]), escape(text(route["by"])), reason.empty() ? "" : ": " + escape(reason));
  print_counts(route);
  if (std::uint64_t waiting = count(route["waiting"]))
    fmt::print("  {} CLIENTS WAIT for a connection: the primary takes no more than the {} that it has\n", waiting, count(route["connections"]));
  if (std::string problem = text(route["problem"]); !problem.empty()) fmt::print("  PROBLEM: {}\n", escape(problem));
  if (std::int64_t late_s = route["late_s"].get<std::int64_t>(); late_s > 0)
    fmt::print("  NOT UP TO DATE: what decides has not answered for {} s, as when the disk hangs; a decision takes effect when it does\n", late_s);
  for (const Json& upstream : route["upstreams"]) {
    bool is_healthy = upstream["healthy"].get<bool>();
    fmt::print("  upstream {}  {}\n", text(upstream["address"]), is_healthy ? "healthy" : "FAILING: " + escape(text(upstream["last_error"])));
  }
}

void print_journal(const Json& journal) {
  fmt::print("journal {}: {} entries, {:.1f} MiB, last id {}, oldest segment of {}\n", text(journal["path"]), count(journal["entries"]),
             mebibytes(journal["bytes"]), count(journal["last_id"]), text(journal["oldest"]));
  if (!journal["writable"].get<bool>()) fmt::print("  NOT WRITABLE: {}\n", text(journal["last_error"]));
  if (std::uint64_t slow_ms = count(journal["slow_commit_ms"]))
    fmt::print("  SLOW DISK: a commit takes {:.1f} s, and clients wait for it\n", static_cast<double>(slow_ms) / 1000);
  if (journal["nearly_full"].get<bool>()) fmt::print("  NEARLY FULL: there is room for {:.1f} MiB more\n", mebibytes(journal["room"]));
  if (std::string why = text(journal["keys_problem"]); !why.empty())
    fmt::print("  KEYS MISSING, do not stop Holdfast: nothing here could be read after a restart: {}\n", printable(why));
  if (std::string why = text(journal["retention_overdue"]); !why.empty()) fmt::print("  RETENTION OVERDUE: {}\n", printable(why));
  if (std::uint64_t bypassed = count(journal["bypassed"])) fmt::print("  {} messages passed WITHOUT an entry (when_full: bypass)\n", bypassed);
}

void print_ldap(const Json& ldap) {
  std::string last = text(ldap["last_success"]), problem = text(ldap["problem"]);
  fmt::print("  synced with {}: {}\n", escape(text(ldap["url"])),
             last.empty() ? "not yet" : fmt::format("{} entries, last {}", count(ldap["people"]), last));
  if (!problem.empty()) fmt::print("  NOT SYNCED: {}\n", escape(problem));
}

void print_feed(const Json& feed) {
  std::string problem = text(feed["problem"]);
  fmt::print("mail store fed at {}: {} messages to be tried again\n", escape(text(feed["to"])), count(feed["put_off"]));
  if (!problem.empty()) fmt::print("  NOT FED: {}\n", escape(problem));
}

void print_mailboxes(const Json& mailboxes) {
  if (mailboxes.is_null()) return fmt::print("emergency mailboxes: NOT AVAILABLE; see the daemon's log\n");
  if (std::string problem = text(mailboxes["problem"]); !problem.empty()) return fmt::print("emergency mailboxes: PROBLEM: {}\n", problem);
  std::string open;
  for (const Json& route : mailboxes["open_routes"]) open += (open.empty() ? "" : ", ") + text(route);
  fmt::print("emergency mailboxes: {}, {} accounts, {} people logged in\n", open.empty() ? "closed" : "OPEN for route " + open,
             count(mailboxes["accounts"]), count(mailboxes["people"]));
}

void print_status(const Json& status) {
  fmt::print("holdfast {}, up {} s, {} connections now, {} since the start\n", text(status["version"]), status["uptime_s"].get<std::int64_t>(),
             count(status["connections"]), count(status["accepted"]));
  for (const Json& route : status["routes"]) print_route(route);
  print_journal(status["journal"]);
  fmt::print("directory: {} recipients known\n", count(status["recipients_known"]));
  if (const Json& ldap = status["ldap"]; !ldap.is_null()) print_ldap(ldap);
  if (const Json& feed = status["feed"]; !feed.is_null()) print_feed(feed);
  print_mailboxes(status["mailboxes"]);
  for (const Json& certificate : status["certificates"])
    if (std::string caution = text(certificate["caution"]); !caution.empty())
      fmt::print("CERTIFICATE {}: {}\n", escape(text(certificate["file"])), caution);
  for (const Json& listener : status["listeners"]) fmt::print("listening on {}\n", text(listener));
}

int show_status(const std::string& path, bool as_json) {
  Result<Config> config = load_config(path);
  if (!config) return fail(config.error());
  if (config->admin_socket.empty())
    return fail({ErrorCode::invalid, path + ": admin.socket is not set, so the daemon cannot be asked; set it and restart"});
  auto status = ask_admin(config->admin_socket, "/status");
  if (!status) return fail(status.error());
  if (as_json)
    fmt::print("{}\n", to_line(*status));
  else
    print_status(*status);
  return EX_OK;
}

}  // namespace

void add_status_command(CLI::App& app, const std::string& config, int& exit_code) {
  static bool as_json = false;  // options live as long as the program
  CLI::App* status = app.add_subcommand("status", "ask the running daemon for its state");
  status->add_flag("--json", as_json, "as JSON");
  status->callback([&config, &exit_code] { exit_code = show_status(config, as_json); });
}

}  // namespace holdfast::proxy
