// `holdfast journal legal-hold`: what may be neither erased nor pruned, until it is lifted.
#include <fmt/format.h>
#include <sysexits.h>

#include <map>

#include "proxy/cli.h"
#include "proxy/cli_filter.h"
#include "proxy/journal_access.h"
#include "proxy/json.h"
#include "proxy/log.h"
#include "proxy/units.h"

namespace holdfast::proxy {
namespace {

using Holds = std::map<std::string, journal::LegalHoldRecord>;

/// The holds that are set, by name, from the log itself. Error: corrupt; those that can be read are there all the same.
Status read_holds(journal::Reader& reader, Holds& holds) {
  return reader.each_record(journal::RecordKind::legal_hold, {}, [&](const journal::Segment::StoredRecord& record) {
    auto hold = journal::decode_legal_hold(record.encoded);
    if (hold && hold->is_set)
      holds[hold->name] = std::move(*hold);
    else if (hold)
      holds.erase(hold->name);
  });
}

/// By the daemon, or without one by opening the journal.
Result<journal::RecordId> write_hold(const Config& config, journal::LegalHoldRecord hold) {
  auto reached = ask_or_open(config, "/journal/legal-hold", {{"legal_hold", journal::to_hex(journal::encode(hold))}});
  if (!reached) return reached.error();
  if (!reached->journal) return reached->answer["record"].get<journal::RecordId>();
  hold.by = own_name();
  return reached->journal->record_legal_hold(hold);
}

struct HoldCommand {
  FilterOptions filter;
  std::string name, reason;
  bool as_json = false;
};

int set_or_lift(const std::string& config_path, const HoldCommand& command, bool is_set) {
  Result<Config> config = load_config(config_path);
  if (!config) return fail(config.error());
  auto reader = open_reader(config_path);
  if (!reader) return fail(reader.error());
  Holds holds;
  Status read = read_holds(**reader, holds);
  // Who must keep something must be able to say so, whatever is damaged.
  if (!read && !is_damage(read.error())) return fail(read.error());
  bool is_there = holds.count(command.name) > 0;
  if (is_set && is_there)
    return fail({ErrorCode::invalid, fmt::format("there is a legal hold named \"{}\" already; lift it first, or take another name", command.name)}),
           EX_USAGE;
  if (!is_set && !is_there)
    return fail({ErrorCode::not_found, fmt::format("there is no legal hold named \"{}\"; see: holdfast journal legal-hold list", command.name)});
  journal::LegalHoldRecord hold;
  hold.time_us = journal::now_us();
  hold.is_set = is_set;
  hold.name = command.name;
  hold.reason = command.reason;
  const FilterOptions& f = command.filter;
  if (is_set) {
    auto filter = f.filter();
    if (!filter) return fail(filter.error()), EX_USAGE;
    if (!f.outcome.empty() || !f.route.empty() || !f.direction.empty())
      return fail({ErrorCode::invalid,
                   "a legal hold names people, messages and times: --sender, --recipient, --message-id, "
                   "--id, --since, --until"}),
             EX_USAGE;
    for (journal::RecordId id : f.ids) {
      auto entry = (*reader)->entry(id);
      bool is_nowhere = read && !entry && entry.error().code == ErrorCode::not_found;  // not in what cannot be read either
      if (is_nowhere) return fail(entry.error());
    }
    hold.sender = f.sender;
    hold.recipient = f.recipient;
    hold.message_id = f.message_id;
    hold.since_us = filter->since_us.value_or(0);
    hold.until_us = filter->until_us.value_or(0);
    hold.entries.assign(f.ids.begin(), f.ids.end());
  }
  auto written = write_hold(*config, std::move(hold));
  if (!written) return fail(written.error());
  fmt::print("legal hold \"{}\" is {}; on record as {}\n", escape(command.name), is_set ? "set" : "lifted", *written);
  return EX_OK;
}

int list_legal_holds(const std::string& config_path, bool as_json) {
  auto reader = open_reader(config_path);
  if (!reader) return fail(reader.error());
  Holds holds;
  Status read = read_holds(**reader, holds);
  for (const auto& [name, hold] : holds) {
    Json json = {{"name", name}, {"time", format_time(hold.time_us)}, {"by", hold.by}, {"reason", hold.reason}};
    for (const auto& [key, text] :
         {std::pair("sender", &hold.sender), std::pair("recipient", &hold.recipient), std::pair("message_id", &hold.message_id)})
      if (!text->empty()) json[key] = *text;
    if (hold.since_us != 0) json["since"] = format_time(hold.since_us);
    if (hold.until_us != 0) json["until"] = format_time(hold.until_us);
    if (!hold.entries.empty()) json["ids"] = hold.entries;
    if (as_json) {
      fmt::print("{}\n", to_line(json));
      continue;
    }
    std::string line;
    for (const auto& [key, value] : json.items())
      line += fmt::format("{}{}: {}", line.empty() ? "" : ", ", key, value.is_string() ? escape(value.get<std::string>()) : to_line(value));
    fmt::print("{}\n", line);
  }
  return read ? EX_OK : fail(read.error());
}

}  // namespace

void add_legal_hold_commands(CLI::App& group, const std::string& config, int& exit_code) {
  static HoldCommand command;  // lives as long as the program
  CLI::App* holds = group.add_subcommand("legal-hold", "what may be neither erased nor pruned");
  holds->require_subcommand(1);
  holds->fallthrough();
  for (auto [name, what, is_set] :
       {std::tuple("set", "protect what the filters name; without any, all", true), std::tuple("lift", "protect it no more", false)}) {
    CLI::App* app = holds->add_subcommand(name, what);
    app->add_option("NAME", command.name, "the hold's name")->required();
    app->add_option("--reason", command.reason, "why; goes into the journal")->required();
    if (is_set) {
      command.filter.add_to(*app);
      command.filter.add_ids_to(*app);
    }
    app->callback([&config, &exit_code, is_set = is_set] { exit_code = set_or_lift(config, command, is_set); });
  }
  CLI::App* app = holds->add_subcommand("list", "those that are set");
  app->add_flag("--json", command.as_json, "one JSON object a line");
  app->callback([&config, &exit_code] { exit_code = list_legal_holds(config, command.as_json); });
}

}  // namespace holdfast::proxy
