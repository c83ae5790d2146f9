// `holdfast failover`, `holdfast queue` and `holdfast directory`: what operators ask and tell the running daemon, and what was decided before.
#include <fmt/format.h>
#include <sysexits.h>

#include <algorithm>
#include <chrono>
#include <map>
#include <thread>
#include <vector>

#include "failover/route_state.h"
#include "proxy/admin_client.h"
#include "proxy/cli.h"
#include "proxy/cli_filter.h"
#include "proxy/command.h"
#include "proxy/config.h"
#include "proxy/journal_access.h"
#include "proxy/json.h"
#include "proxy/log.h"
#include "proxy/people.h"
#include "proxy/units.h"

namespace holdfast::proxy {
namespace {

Result<Json> ask(const std::string& config_path, const std::string& resource, const Json& body = Json::object()) {
  Result<Config> config = load_config(config_path);
  if (!config) return config.error();
  if (config->admin_socket.empty())
    return Error{ErrorCode::invalid, config_path + ": admin.socket is not set, so the daemon cannot be asked; set it and restart"};
  return ask_admin(config->admin_socket, resource, body);
}

std::string text_of(const Json& json, const char* key) { return escape(json.value(key, std::string())); }

int set_mode(const std::string& config, const std::string& mode, const std::string& route, const std::string& reason) {
  auto changed = ask(config, "/failover", {{"mode", mode}, {"route", route}, {"reason", reason}});
  if (!changed) return fail(changed.error());
  for (const Json& one : *changed) fmt::print("route {}: state {}, mode {}\n", text_of(one, "name"), text_of(one, "state"), text_of(one, "mode"));
  return EX_OK;
}

/// "2:05:13"
std::string clock_text(std::int64_t seconds) { return fmt::format("{}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60); }

/// From the journal: it needs no daemon.
int history(const std::string& config, const FilterOptions& options, bool as_json) {
  auto filter = options.filter();
  if (!filter) return fail(filter.error()), EX_USAGE;
  auto reader = open_reader(config);
  if (!reader) return fail(reader.error());
  struct Change {
    journal::StateRecord state;
    std::int64_t until_us = 0;  ///< 0: it is so now
  };
  std::vector<Change> changes;
  std::map<std::string, std::size_t> last;  // of each route
  journal::Filter since;
  since.since_us = filter->since_us;
  Status read = (*reader)->each_record(journal::RecordKind::state, since, [&](const journal::Segment::StoredRecord& record) {
    auto state = journal::decode_state(record.encoded);
    if (!state || (filter->route && state->route != *filter->route)) return;
    if (auto before = last.find(state->route); before != last.end()) changes[before->second].until_us = state->time_us;
    last[state->route] = changes.size();
    changes.push_back({std::move(*state)});
  });
  for (const auto& [state, until_us] : changes) {
    bool is_wanted = (!filter->since_us || state.time_us >= *filter->since_us) && (!filter->until_us || state.time_us < *filter->until_us);
    if (!is_wanted) continue;
    std::string_view name = failover::to_string(static_cast<failover::State>(state.state)),
                     mode = failover::to_string(static_cast<failover::Mode>(state.mode));
    std::int64_t lasted_s = std::max<std::int64_t>(0, until_us - state.time_us) / 1'000'000;  // clocks are set
    if (as_json)
      fmt::print("{}\n", to_line({{"time", format_time(state.time_us)},
                                  {"route", state.route},
                                  {"state", name},
                                  {"mode", mode},
                                  {"by", state.by},
                                  {"reason", state.reason},
                                  {"lasted_s", until_us == 0 ? Json() : Json(lasted_s)}}));
    else
      fmt::print("{}  {}: {} (mode {}) {}, by {}{}\n", format_time(state.time_us), escape(state.route), upper(std::string(name)), mode,
                 until_us == 0 ? "until now" : "for " + clock_text(lasted_s), escape(state.by),
                 state.reason.empty() ? "" : ": " + escape(state.reason));
  }
  return read ? EX_OK : fail(read.error());
}

void print_entry(const Json& one) {
  fmt::print("{:>8}  {}  {}  <{}>  {} bytes\n", one["id"].get<std::uint64_t>(), text_of(one, "time"), text_of(one, "route"),
             text_of(one, "mail_from"), one["size"].get<std::uint64_t>());
  for (const Json& recipient : one["recipients"]) fmt::print("{:>10}<{}>  {}\n", "", text_of(recipient, "address"), text_of_held(recipient));
}

/// What the journal has of it, and what the daemon does with it.
int queue_show(const std::string& config, std::uint64_t id, bool as_json) {
  auto held = ask(config, "/queue/show", {{"id", id}});
  if (!held) return fail(held.error());
  if (held->contains("problem")) fmt::print(stderr, "holdfast: {}\n", text_of(*held, "problem"));
  return show_entry(config, id, as_json, held->contains("problem") ? Json() : *held);
}

/// Page by page: the daemon's queue may be long, and it has other things to do.
int queue_list(const std::string& config, const std::string& route, std::uint64_t limit, bool as_json) {
  Json request = {{"route", route}};
  for (std::uint64_t left = limit; left > 0;) {
    request["limit"] = left;
    auto page = ask(config, "/queue/list", request);
    if (!page) return fail(page.error());
    if (page->contains("problem")) return fail({ErrorCode::not_found, text_of(*page, "problem")});
    for (const Json& one : (*page)["entries"]) {
      if (as_json)
        fmt::print("{}\n", to_line(one));
      else
        print_entry(one);
    }
    if ((*page)["next"].is_null()) break;
    left -= std::min<std::uint64_t>(left, (*page)["entries"].size());
    request["from_route"] = (*page)["next"]["route"];
    request["after"] = (*page)["next"]["after"];
  }
  if (as_json) return EX_OK;
  auto status = ask(config, "/status");
  if (!status) return fail(status.error());
  for (const Json& one : (*status)["routes"]) {
    std::string left = one["left_s"].is_number() ? fmt::format(", about {} s left", one["left_s"].get<std::uint64_t>()) : "";
    fmt::print("route {}: {} held, {:.0f} delivered a second{}\n", text_of(one, "name"), one["held"].get<std::uint64_t>(),
               one["per_second"].get<double>(), left);
  }
  return EX_OK;
}

int report(const Result<Json>& answer, const char* done) {
  if (!answer) return fail(answer.error());
  if (answer->contains("problem")) return fail({ErrorCode::not_found, (*answer)["problem"].get<std::string>()});
  for (const auto& [key, value] : answer->items()) fmt::print("{} {}\n", to_line(value), done);
  return EX_OK;
}

int directory_list(const std::string& config, bool as_json) {
  auto list = ask(config, "/directory/list");
  if (!list) return fail(list.error());
  for (const Json& one : *list) {
    if (as_json)
      fmt::print("{}\n", to_line(one));
    else
      fmt::print("{:<40}  {:<14}  {:<8}  {}  {}\n", text_of(one, "address"), one["exists"].get<bool>() ? "exists" : "does not exist",
                 text_of(one, "source"), text_of(one, "time"), text_of(one, "name"));
  }
  return EX_OK;
}

int directory_import(const std::string& config, const std::string& file) {
  auto people = read_people_file(file);
  if (!people) return fail(people.error()), EX_DATAERR;
  return report(ask(config, "/directory/import", {{"people", people_to_json(*people)}}), "recipients imported");
}

int directory_remove(const std::string& config, const std::string& address) {
  auto answer = ask(config, "/directory/remove", {{"address", address}});
  if (!answer) return fail(answer.error());
  fmt::print("{} is forgotten\n", escape(address));
  std::string file = text_of(*answer, "comes_back_from");
  if (!file.empty()) fmt::print(stderr, "holdfast: where it stands in {}, the next start or SIGHUP brings it back\n", file);
  return EX_OK;
}

/// Waits until the daemon has synced, however long the LDAP server takes.
int directory_sync(const std::string& config) {
  auto asked = ask(config, "/directory/sync");
  if (!asked) return fail(asked.error());
  for (;;) {
    auto state = ask(config, "/directory/ldap");
    if (!state) return fail(state.error());
    if (state->is_null()) return fail({ErrorCode::unavailable, "directory.ldap was taken out of the configuration meanwhile"});
    if ((*state)["runs"] < (*asked)["run"]) {
      std::this_thread::sleep_for(std::chrono::milliseconds(50));
      continue;
    }
    if (std::string problem = text_of(*state, "problem"); !problem.empty())
      return fail({ErrorCode::unavailable, problem + "; the last good copy stays in use"});
    fmt::print("{} entries, {}\n", (*state)["people"].get<std::uint64_t>(), text_of(*state, "last_run"));
    return EX_OK;
  }
}

}  // namespace

void add_failover_commands(CLI::App& app, const std::string& config, int& exit_code) {
  // Options live as long as the program.
  static std::string route, reason, file, address;
  static std::uint64_t id = 0, limit = 1000;
  static bool as_json = false, all = false;
  static FilterOptions when;

  CLI::App* group = app.add_subcommand("failover", "decide whether mail is held or passes; without a decision the breaker decides");
  group->require_subcommand(1);
  group->fallthrough();
  for (auto [mode, what] : {std::pair("hold", "hold all mail, whatever the primary does"),
                            std::pair("pass", "let mail pass, whatever the breaker says"), std::pair("auto", "let the breaker decide")}) {
    CLI::App* command = group->add_subcommand(mode, what);
    command->add_option("--route", route, "only this route; default: all");
    command->add_option("--reason", reason, "why; goes into the journal")->required();
    command->callback([&config, &exit_code, mode = std::string(mode)] { exit_code = set_mode(config, mode, route, reason); });
  }

  CLI::App* command = group->add_subcommand("history", "all changes of state: when, for how long, by whom and why");
  command->add_option("--route", when.route, "only this route");
  when.add_times_to(*command);
  command->add_flag("--json", as_json, "one JSON object a line");
  command->callback([&config, &exit_code] { exit_code = history(config, when, as_json); });

  group = app.add_subcommand("queue", "held mail");
  group->require_subcommand(1);
  group->fallthrough();
  command = group->add_subcommand("list", "what is held, oldest first, and how fast it flows");
  command->add_option("--route", route, "only this route");
  command->add_option("--limit", limit, "at most so many")->capture_default_str();
  command->add_flag("--json", as_json, "one JSON object a line");
  command->callback([&config, &exit_code] { exit_code = queue_list(config, route, limit, as_json); });
  command = group->add_subcommand("show", "all about one held entry");
  command->add_option("ID", id, "the entry's number")->required();
  command->add_flag("--json", as_json, "one JSON object a line");
  command->callback([&config, &exit_code] { exit_code = queue_show(config, id, as_json); });
  command = group->add_subcommand("retry", "deliver now what waits for its next attempt, or was kept for you");
  command->add_option("ID", id, "the entry's number");
  command->add_flag("--all", all, "everything");
  command->callback([&config, &exit_code] {
    exit_code = id == 0 && !all ? (fail({ErrorCode::invalid, "name an entry, or --all"}), EX_USAGE)
                                : report(ask(config, "/queue/retry", {{"id", id}}), "entries are tried again");
  });
  command = group->add_subcommand("drop", "give up on a held entry; nobody is told");
  command->add_option("ID", id, "the entry's number")->required();
  command->add_option("--reason", reason, "why; goes into the journal")->required();
  command->callback([&config, &exit_code] {
    exit_code = report(ask(config, "/queue/drop", {{"id", id}, {"reason", reason}}), "recipients dropped");
  });

  group = app.add_subcommand("directory", "which recipients exist");
  group->require_subcommand(1);
  group->fallthrough();
  command = group->add_subcommand("list", "all that are known");
  command->add_flag("--json", as_json, "one JSON object a line");
  command->callback([&config, &exit_code] { exit_code = directory_list(config, as_json); });
  command = group->add_subcommand("sync", "fetch people and groups from the LDAP server now");
  command->callback([&config, &exit_code] { exit_code = directory_sync(config); });
  command = group->add_subcommand("import", "add recipients from a file: one address a line, or CSV with a heading line");
  command->add_option("FILE", file, "the file")->required();
  command->callback([&config, &exit_code] { exit_code = directory_import(config, file); });
  command = group->add_subcommand("remove", "forget an address; the primary's next answer about it, or an import, brings it back");
  command->add_option("ADDRESS", address, "the address")->required();
  command->callback([&config, &exit_code] { exit_code = directory_remove(config, address); });
}

}  // namespace holdfast::proxy
