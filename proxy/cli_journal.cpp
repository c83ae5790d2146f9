// `holdfast journal ...`: how auditors and operators look into the journal.
#include <fcntl.h>
#include <fmt/format.h>
#include <sysexits.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <thread>

#include "journal/backup.h"
#include "journal/head.h"
#include "journal/journal.h"
#include "journal/reader.h"
#include "proxy/admin_client.h"
#include "proxy/cli.h"
#include "proxy/cli_filter.h"
#include "proxy/config.h"
#include "proxy/journal_access.h"
#include "proxy/journal_room.h"
#include "proxy/json.h"
#include "proxy/log.h"
#include "proxy/mime.h"
#include "proxy/progress_bar.h"
#include "proxy/units.h"

namespace holdfast::proxy {
namespace {

using journal::Entry;

Json to_json(const Entry& entry) {
  const journal::MessageRecord& message = entry.message;
  Json recipients = Json::array();
  for (const journal::Recipient& one : message.recipients)
    recipients.push_back({{"address", one.address}, {"outcome", journal::to_string(one.outcome)}, {"reply", one.reply}});
  return {{"id", entry.id},
          {"time", format_time(message.time_us)},
          {"direction", journal::to_string(message.direction)},
          {"route", message.route},
          {"client", message.client},
          {"helo", message.helo},
          {"tls", message.tls},
          {"mail_from", message.mail_from},
          {"recipients", recipients},
          {"size", message.size},
          {"sha256", journal::to_hex(journal::view(message.content_hash))},
          {"message_id", message.message_id},
          {"subject", decode_header_text(message.subject)},
          {"possible_duplicate", entry.is_possible_duplicate}};
}

void print_row(const Entry& entry) {
  const journal::MessageRecord& message = entry.message;
  std::string to = message.recipients.empty() ? "" : message.recipients.front().address;
  std::string outcome(message.recipients.empty() ? "" : journal::to_string(message.recipients.front().outcome));
  if (message.recipients.size() > 1) to += fmt::format(" +{}", message.recipients.size() - 1);
  fmt::print("{:>8}  {}  {:<9}  {:>9}  {} -> {}  {}\n", entry.id, format_time(message.time_us), outcome, message.size,
             escape("<" + message.mail_from + ">"), escape(to), escape(decode_header_text(message.subject)));
}

int list_entries(const std::string& config_path, const FilterOptions& options, std::uint64_t limit, bool newest_first, bool as_json) {
  Result<journal::Filter> filter = options.filter();
  if (!filter) return fail(filter.error()), EX_USAGE;
  auto reader = open_reader(config_path);
  if (!reader) return fail(reader.error());
  std::uint64_t shown = 0;
  Status read = (*reader)->each(*filter, newest_first, [&](const Entry& entry) {
    if (limit > 0 && shown >= limit) return false;
    if (as_json)
      fmt::print("{}\n", to_line(to_json(entry)));
    else
      print_row(entry);
    ++shown;
    return true;
  });
  if (!read) return fail(read.error());
  if (!as_json && shown == 0) fmt::print(stderr, "no entry matches\n");
  return warn_of_damage((*reader)->damaged());
}

/// What journal stats counts.
struct Stats {
  std::uint64_t entries = 0, content_bytes = 0, stored_bytes = 0, free_bytes = 0;
  std::uint64_t compacted_segments = 0;
  std::uint64_t recent_entries = 0, recent_bytes = 0;  ///< of the last week
  std::int64_t oldest_us = 0, newest_us = 0;
  std::map<std::string, std::uint64_t> outcomes;

  double ratio() const { return content_bytes ? static_cast<double>(stored_bytes) / static_cast<double>(content_bytes) : 0; }
  /// Of the last week, or as far back as the journal goes.
  double days() const {
    constexpr double day_us = 86400e6;
    return std::clamp(static_cast<double>(journal::now_us() - oldest_us) / day_us, 1.0 / 24, static_cast<double>(week_days));
  }
  /// Bytes on the disk that a day adds.
  double growth() const { return static_cast<double>(recent_bytes) * ratio() / days(); }
  static constexpr int week_days = 7;
};

Result<Stats> count(journal::Reader& reader, const std::string& path) {
  Stats stats;
  std::int64_t week_ago = journal::now_us() - static_cast<std::int64_t>(Stats::week_days) * 86400 * 1000000;
  const std::vector<std::uint32_t>& segments = reader.segments();
  ProgressBar bar("counting");
  Status read = reader.each({}, false, [&](const Entry& entry) {
    bar.show(static_cast<double>(entry.segment - segments.front()) / (segments.back() - segments.front() + 1));
    ++stats.entries;
    stats.content_bytes += entry.message.size;
    if (stats.oldest_us == 0) stats.oldest_us = entry.message.time_us;
    stats.newest_us = entry.message.time_us;
    if (entry.message.time_us > week_ago) {
      ++stats.recent_entries;
      stats.recent_bytes += entry.message.size;
    }
    for (const journal::Recipient& one : entry.message.recipients) ++stats.outcomes[std::string(journal::to_string(one.outcome))];
    return true;
  });
  if (!read) return read.error();
  for (std::uint32_t number : segments)
    if (auto segment = reader.segment(number)) {
      stats.stored_bytes += (*segment)->environment().used_bytes();
      stats.compacted_segments += (*segment)->header().is_compacted;
    }
  stats.free_bytes = journal::free_space(path);
  return stats;
}

int stats(const std::string& config_path, bool as_json) {
  constexpr double mib = 1 << 20, gib = 1 << 30;
  Result<JournalConfig> config = journal_config(config_path);
  if (!config) return fail(config.error());
  auto reader = open_reader(config_path);
  if (!reader) return fail(reader.error());
  Result<Stats> found = count(**reader, config->path);
  if (!found) return fail(found.error());
  std::size_t segments = (*reader)->segments().size();
  double days_left = found->growth() > 0 ? static_cast<double>(room_for_journal(*config, found->stored_bytes).left) / found->growth() : 0;
  double entries_a_day = static_cast<double>(found->recent_entries) / found->days();
  if (as_json) {
    Json json = {{"path", config->path},
                 {"entries", found->entries},
                 {"segments", segments},
                 {"compacted_segments", found->compacted_segments},
                 {"content_bytes", found->content_bytes},
                 {"stored_bytes", found->stored_bytes},
                 {"ratio", found->ratio()},
                 {"entries_a_day", entries_a_day},
                 {"growth_a_day", found->growth()},
                 {"free_bytes", found->free_bytes},
                 {"days_left", found->growth() > 0 ? Json(days_left) : Json()},
                 {"oldest", found->entries ? format_time(found->oldest_us) : ""},
                 {"newest", found->entries ? format_time(found->newest_us) : ""},
                 {"recipients", found->outcomes},
                 {"damaged", (*reader)->damaged()}};
    fmt::print("{}\n", to_line(json));
    return warn_of_damage((*reader)->damaged());
  }
  fmt::print("{}: {} entries in {} segments, {} of them compacted\n", config->path, found->entries, segments, found->compacted_segments);
  fmt::print("{:.1f} MiB of content in {:.1f} MiB on disk (ratio {:.2f}), {:.1f} GiB free\n", static_cast<double>(found->content_bytes) / mib,
             static_cast<double>(found->stored_bytes) / mib, found->ratio(), static_cast<double>(found->free_bytes) / gib);
  if (found->entries > 0) fmt::print("from {} to {}\n", format_time(found->oldest_us), format_time(found->newest_us));
  std::string span = found->days() < 2 ? fmt::format("{:.0f} h", found->days() * 24) : fmt::format("{:.0f} days", found->days());
  if (found->growth() > 0)
    fmt::print("over the last {}: {:.0f} entries and {:.1f} MiB on disk a day; the room lasts {:.0f} days{}\n", span, entries_a_day,
               found->growth() / mib, days_left,
               config->retention > Duration(0) ? fmt::format("; journal.retention removes what is older than {}", to_text(config->retention)) : "");
  for (const auto& [outcome, number] : found->outcomes) fmt::print("  {:<10} {} recipients\n", outcome, number);
  return warn_of_damage((*reader)->damaged());
}

/// A newest segment that has grown large is ended before a backup: then it is copied little by little, as sealed ones are, and only
/// once. Without a daemon there is no mail that would have to wait.
void end_large_segment(const Config& config) {
  constexpr std::uintmax_t large = 64 << 20;
  constexpr auto patience = std::chrono::minutes(1);
  auto numbers = journal::list_segments(config.journal.path);
  if (!numbers || numbers->empty() || config.admin_socket.empty()) return;
  std::uint32_t newest = numbers->back();
  std::error_code ignored;
  if (std::filesystem::file_size(journal::segment_path(config.journal.path, newest), ignored) < large) return;
  if (!ask_admin(config.admin_socket, "/journal/seal")) return;
  auto end = std::chrono::steady_clock::now() + patience;
  while (!journal::read_head(config.journal.path, newest) && std::chrono::steady_clock::now() < end)
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
}

int backup(const std::string& config_path, const std::string& folder) {
  Result<Config> loaded = load_config(config_path);
  if (!loaded) return fail({ErrorCode::invalid, loaded.error().message});
  const JournalConfig* config = &loaded->journal;
  end_large_segment(*loaded);
  stand_back();
  Result<journal::BackedUp> done = [&] {
    ProgressBar bar("backing up");
    return journal::back_up(config->path, folder, [&](double share) { bar.show(share); });
  }();
  bool goes_on = !done && done.error().code != ErrorCode::busy;
  if (!done) return fail({done.error().code, done.error().message + (goes_on ? "; the same command goes on" : "")});
  fmt::print("{} segments copied, {} unchanged, {} removed, {:.1f} MiB; the master key ({}) is not among it: keep it elsewhere, safely\n",
             done->copied, done->unchanged, done->removed, static_cast<double>(done->bytes) / (1 << 20), config->key.name());
  for (const std::string& one : done->damaged) fmt::print(stderr, "holdfast: DAMAGED: {}; run: holdfast journal verify\n", printable(one));
  return done->damaged.empty() ? EX_OK : EX_DATAERR;
}

int rebuild(const std::string& config_path) {
  Result<JournalConfig> config = journal_config(config_path);
  if (!config) return fail(config.error());
  std::vector<Error> damage;
  Result<std::uint64_t> entries = [&] {
    ProgressBar bar("rebuilding");
    return journal::rebuild_catalog(
        config->path, config->key, [&](double share) { bar.show(share); }, [&](const Error& what) { damage.push_back(what); });
  }();
  if (!entries) return fail(entries.error());
  fmt::print("the catalog is built anew from the segments: {} entries\n", *entries);
  for (const Error& what : damage)
    fail({what.code, what.message + "; what can be read is indexed. Restore the file from your backup, and run this again"});
  return damage.empty() ? EX_OK : EX_DATAERR;
}

}  // namespace

std::string text_of_held(const Json& recipient) {
  std::string text = recipient.at("status").get<std::string>();
  if (recipient.at("next_attempt").is_string()) text += ", again at " + recipient["next_attempt"].get<std::string>();
  std::string reply = escape(recipient.at("reply").get<std::string>());
  return reply.empty() ? text : text + "  " + reply;
}

int show_entry(const std::string& config_path, std::uint64_t id, bool as_json, const Json& held) {
  auto reader = open_reader(config_path);
  if (!reader) return fail(reader.error());
  Result<Entry> entry = (*reader)->entry(id);
  if (!entry) return fail(entry.error());
  Json json = to_json(*entry);
  json["mail_params"] = entry->message.mail_params;
  json["auth"] = entry->message.auth;
  json["session"] = entry->message.session;
  json["protocol"] = entry->message.protocol;
  json["server"] = entry->message.server;
  json["segment"] = entry->segment;
  for (std::size_t i = 0; i < entry->message.recipients.size(); ++i) json["recipients"][i]["params"] = entry->message.recipients[i].params;
  if (held.is_object())
    for (const Json& one : held.at("recipients")) json["recipients"][one.at("index").get<std::size_t>()]["held"] = one;
  if (as_json) {
    fmt::print("{}\n", to_line(json));
    return EX_OK;
  }
  for (const auto& [key, value] : json.items()) {
    if (key == "recipients") continue;
    fmt::print("{:<12} {}\n", key, value.is_string() ? escape(value.get<std::string>()) : to_line(value));
  }
  for (const auto& one : json["recipients"]) {
    fmt::print("{:<12} {}  {}  {}  {}\n", "recipient", escape(one["address"].get<std::string>()), one["outcome"].get<std::string>(),
               escape(one["reply"].get<std::string>()), escape(one["params"].get<std::string>()));
    if (one.contains("held")) fmt::print("{:<12} {}\n", "", text_of_held(one["held"]));
  }
  return EX_OK;
}

void add_journal_commands(CLI::App& app, const std::string& config, int& exit_code) {
  // Options live as long as the program.
  static FilterOptions filter;
  static std::uint64_t limit = 0, id = 0;
  static bool as_json = false, newest_first = false;
  CLI::App* group = app.add_subcommand("journal", "look into the journal; works while the daemon runs");
  group->require_subcommand(1);
  group->fallthrough();
  auto add = [&](const char* name, const char* what, auto action) {
    CLI::App* command = group->add_subcommand(name, what);
    command->callback([&exit_code, action] { exit_code = action(); });
    return command;
  };
  auto add_json = [](CLI::App* command) { command->add_flag("--json", as_json, "one JSON object a line"); };

  CLI::App* command = add("list", "entries, oldest first", [&config] { return list_entries(config, filter, limit, newest_first, as_json); });
  filter.add_to(*command);
  command->add_option("--limit", limit, "at most so many");
  command->add_flag("--newest", newest_first, "newest first");
  add_json(command);

  command = add("show", "all about one entry", [&config] { return show_entry(config, id, as_json); });
  command->add_option("ID", id, "the entry's number")->required();
  add_json(command);

  add_export_command(*group, config, exit_code);
  add_replay_command(*group, config, exit_code);
  add_json(add("stats", "counts and sizes", [&config] { return stats(config, as_json); }));
  add_erase_commands(*group, config, exit_code);
  add_legal_hold_commands(*group, config, exit_code);
  add_proof_commands(*group, config, exit_code);
  add_rekey_command(*group, config, exit_code);
  static std::string folder;
  command = add("backup", "bring a consistent copy in a folder up to date, while mail goes on", [&config] { return backup(config, folder); });
  command->add_option("DIR", folder, "the folder")->required();
  add("rebuild", "build the catalog anew from the segments", [&config] { return rebuild(config); });
}

}  // namespace holdfast::proxy
