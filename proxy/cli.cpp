#include "proxy/cli.h"

#include <fmt/format.h>
#include <sysexits.h>

#include <cerrno>
#include <cstdio>
#include <csignal>
#include <cstring>
#include <system_error>

#include "journal/catalog.h"
#include "journal/files.h"
#include "proxy/admin.h"
#include "proxy/certificate_watch.h"
#include "proxy/command.h"
#include "proxy/config.h"
#include "proxy/log.h"
#include "proxy/server.h"
#include "proxy/tls.h"

namespace holdfast::proxy {
namespace {

int check(const std::string& path) {
  Result<Config> config = load_config(path);
  if (!config) return fail(config.error());
  auto tls = Tls::load(config->tls);
  if (!tls) return fail(tls.error());
  for (const Tls::Shown& one : (*tls)->shown())
    if (std::string caution = caution_about(one, journal::now_us()); !caution.empty()) fmt::print(stderr, "{}: a word of caution about {}: {}\n", path, one.file, caution);
  if (std::string doubt = journal::doubt_about_disk(config->journal.path); !doubt.empty())
    fmt::print(stderr, "{}: a word of caution about journal.path ({}): {}\n", path, config->journal.path, doubt);
  fmt::print("{}: ok\n", path);
  return EX_OK;
}

void print_status(const Json& status) {
  fmt::print("holdfast {}, up {} s, {} connections now, {} since the start\n", status["version"].get<std::string>(),
             status["uptime_s"].get<std::int64_t>(), status["connections"].get<std::uint64_t>(), status["accepted"].get<std::uint64_t>());
  for (const auto& route : status["routes"]) {
    fmt::print("route {}: {} (mode {}) since {}, by {}{}\n", route["name"].get<std::string>(), upper(route["state"].get<std::string>()),
               route["mode"].get<std::string>(), route["since"].get<std::string>(), escape(route["by"].get<std::string>()),
               route["reason"].get<std::string>().empty() ? "" : ": " + escape(route["reason"].get<std::string>()));
    std::uint64_t held = route["held"].get<std::uint64_t>(), kept = route["kept_for_operator"].get<std::uint64_t>();
    if (held > 0) {
      std::string left = route["left_s"].is_number() ? fmt::format(", about {} s left", route["left_s"].get<std::uint64_t>()) : "";
      fmt::print("  held {} messages, {} being delivered, {:.0f} a second{}\n", held, route["delivering"].get<std::uint64_t>(),
                 route["per_second"].get<double>(), left);
    }
    if (kept > 0) fmt::print("  {} KEPT FOR YOU: refused, and the sender may not be told; see holdfast queue list\n", kept);
    if (std::uint64_t doubted = route["doubted"].get<std::uint64_t>())
      fmt::print("  {} REFUSED, NOT BELIEVED: the primary refuses one held message after the other for good; these stay held, see holdfast queue list\n", doubted);
    if (std::uint64_t twice = route["possible_duplicates"].get<std::uint64_t>()) fmt::print("  {} possible duplicates since the start\n", twice);
    if (route["expires_soon"].get<bool>())
      fmt::print("  EXPIRES SOON: the oldest held message in {}, and the others after it\n", roughly(std::chrono::seconds(route["expires_in_s"].get<std::int64_t>())));
    if (std::string limit = route["limit_reached"].get<std::string>(); !limit.empty()) fmt::print("  LIMIT REACHED: {}: no more mail is held, senders are told 452\n", limit);
    if (std::uint64_t waiting = route["waiting"].get<std::uint64_t>())
      fmt::print("  {} CLIENTS WAIT for a connection: the primary takes no more than the {} that it has\n", waiting, route["connections"].get<std::uint64_t>());
    if (!route["problem"].get<std::string>().empty()) fmt::print("  PROBLEM: {}\n", escape(route["problem"].get<std::string>()));
    if (std::int64_t late_s = route["late_s"].get<std::int64_t>(); late_s > 0)
      fmt::print("  NOT UP TO DATE: what decides has not answered for {} s, as when the disk hangs; a decision takes effect when it does\n", late_s);
    for (const auto& upstream : route["upstreams"]) {
      bool is_healthy = upstream["healthy"].get<bool>();
      fmt::print("  upstream {}  {}\n", upstream["address"].get<std::string>(),
                 is_healthy ? "healthy" : "FAILING: " + escape(upstream["last_error"].get<std::string>()));
    }
  }
  const auto& journal = status["journal"];
  fmt::print("journal {}: {} entries, {:.1f} MiB, last id {}, oldest segment of {}\n", journal["path"].get<std::string>(),
             journal["entries"].get<std::uint64_t>(), static_cast<double>(journal["bytes"].get<std::uint64_t>()) / (1 << 20),
             journal["last_id"].get<std::uint64_t>(), journal["oldest"].get<std::string>());
  if (!journal["writable"].get<bool>()) fmt::print("  NOT WRITABLE: {}\n", journal["last_error"].get<std::string>());
  if (std::int64_t slow_ms = journal["slow_commit_ms"].get<std::int64_t>())
    fmt::print("  SLOW DISK: a commit takes {:.1f} s, and clients wait for it\n", static_cast<double>(slow_ms) / 1000);
  if (journal["nearly_full"].get<bool>())
    fmt::print("  NEARLY FULL: there is room for {:.1f} MiB more\n", static_cast<double>(journal["room"].get<std::uint64_t>()) / (1 << 20));
  if (std::uint64_t bypassed = journal["bypassed"].get<std::uint64_t>()) fmt::print("  {} messages passed WITHOUT an entry (when_full: bypass)\n", bypassed);
  fmt::print("directory: {} recipients known\n", status["recipients_known"].get<std::uint64_t>());
  if (const auto& ldap = status["ldap"]; !ldap.is_null()) {
    std::string last = ldap["last_success"].get<std::string>();
    fmt::print("  synced with {}: {}\n", escape(ldap["url"].get<std::string>()), last.empty() ? "not yet" : fmt::format("{} entries, last {}", ldap["people"].get<std::uint64_t>(), last));
    if (!ldap["problem"].get<std::string>().empty()) fmt::print("  NOT SYNCED: {}\n", escape(ldap["problem"].get<std::string>()));
  }
  if (const auto& feed = status["feed"]; !feed.is_null()) {
    fmt::print("mail store fed at {}: {} messages to be tried again\n", escape(feed["to"].get<std::string>()), feed["put_off"].get<std::uint64_t>());
    if (!feed["problem"].get<std::string>().empty()) fmt::print("  NOT FED: {}\n", escape(feed["problem"].get<std::string>()));
  }
  if (const auto& mailboxes = status["mailboxes"]; mailboxes.is_null()) {
    fmt::print("emergency mailboxes: NOT AVAILABLE; see the daemon's log\n");
  } else if (mailboxes["problem"] != "") {
    fmt::print("emergency mailboxes: PROBLEM: {}\n", mailboxes["problem"].get<std::string>());
  } else {
    std::string open;
    for (const auto& route : mailboxes["open_routes"]) open += (open.empty() ? "" : ", ") + route.get<std::string>();
    fmt::print("emergency mailboxes: {}, {} accounts, {} people logged in\n", open.empty() ? "closed" : "OPEN for route " + open,
               mailboxes["accounts"].get<std::uint64_t>(), mailboxes["people"].get<std::uint64_t>());
  }
  for (const auto& certificate : status["certificates"])
    if (std::string caution = certificate["caution"].get<std::string>(); !caution.empty())
      fmt::print("CERTIFICATE {}: {}\n", escape(certificate["file"].get<std::string>()), caution);
  for (const auto& listener : status["listeners"]) fmt::print("listening on {}\n", listener.get<std::string>());
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

int fail(const Error& error) {
  fmt::print(stderr, "holdfast: {}\n", printable(error.message));
  switch (error.code) {
    case ErrorCode::invalid:
      return EX_CONFIG;
    case ErrorCode::not_found:
      return EX_NOINPUT;
    case ErrorCode::permission:
      return EX_NOPERM;
    case ErrorCode::wrong_key:
      return EX_CONFIG;
    case ErrorCode::corrupt:
      return EX_DATAERR;
    case ErrorCode::io:
      return EX_IOERR;
    case ErrorCode::busy:
    case ErrorCode::no_space:
    case ErrorCode::unavailable:
    case ErrorCode::no_daemon:
      return EX_TEMPFAIL;
  }
  return EX_SOFTWARE;
}

namespace {

/// A variable that a script left unset must not mean "all": nothing that is asked for may be empty.
void refuse_empty_values(CLI::App& app) {
  static const CLI::Validator is_given([](std::string& value) { return value.empty() ? std::string("what is given is empty") : std::string(); }, "");
  for (CLI::Option* option : app.get_options())
    if (option->get_type_size() > 0) option->check(is_given);
  for (CLI::App* command : app.get_subcommands({})) refuse_empty_values(*command);
}

/// The reader of our output may have gone because it has seen enough: that is no news to anybody.
int fail_to_write(int reason) {
  if (reason != EPIPE) fmt::print(stderr, "holdfast: cannot write the output: {}\n", std::strerror(reason));
  return EX_IOERR;
}

}  // namespace

int run_command_line(int argc, char** argv) {
  std::signal(SIGXFSZ, SIG_IGN);  // a file that may not grow more is an error of that write
  CLI::App app{"Holdfast: an SMTP relay that keeps a copy of every message"};
  app.set_version_flag("--version", "holdfast " HOLDFAST_VERSION);
  app.require_subcommand(1);
  app.fallthrough();
  std::string config = "/etc/holdfast/holdfast.yaml";
  app.add_option("-c,--config", config, "the configuration file")->capture_default_str();
  int exit_code = EX_OK;

  app.add_subcommand("serve", "relay and journal mail, in the foreground. SIGHUP reloads, SIGTERM finishes and ends")
      ->callback([&] { exit_code = serve(config); });
  app.add_subcommand("check", "say whether a configuration is valid")->callback([&] { exit_code = check(config); });
  bool as_json = false;
  CLI::App* status = app.add_subcommand("status", "ask the running daemon for its state");
  status->add_flag("--json", as_json, "as JSON");
  status->callback([&] { exit_code = show_status(config, as_json); });
  add_failover_commands(app, config, exit_code);
  add_journal_commands(app, config, exit_code);
  add_mailbox_commands(app, config, exit_code);

  refuse_empty_values(app);
  try {
    app.parse(argc, argv);
    if (std::fflush(stdout) != 0) return fail_to_write(errno);
  } catch (const CLI::RequiredError& problem) {
    std::vector<std::string> unknown = app.remaining(true);
    if (unknown.empty()) return app.exit(problem), EX_USAGE;
    fmt::print(stderr, "holdfast: there is no command \"{}\"; see holdfast --help\n", escape(unknown.front()));
    return EX_USAGE;
  } catch (const CLI::ParseError& problem) {
    return app.exit(problem) == 0 ? EX_OK : EX_USAGE;
  } catch (const std::system_error& problem) {
    if (std::ferror(stdout)) return fail_to_write(problem.code().value());  // fmt::print's
    bool is_out_of_threads = problem.code() == std::errc::resource_unavailable_try_again;
    fmt::print(stderr, "holdfast: {}{}\n", problem.what(), is_out_of_threads ? ": no more threads may be started; raise TasksMax, LimitNPROC or ulimit -u" : "");
    return EX_OSERR;
  }
  return exit_code;
}

}  // namespace holdfast::proxy
