// `holdfast journal erase`, `prune` and `erasures`: what the journal forgets, and who said so.
#include <fmt/format.h>
#include <sysexits.h>

#include <chrono>

#include "proxy/cli.h"
#include "proxy/cli_filter.h"
#include "proxy/cli_job.h"
#include "proxy/journal_access.h"
#include "proxy/json.h"
#include "proxy/log.h"
#include "proxy/progress_bar.h"
#include "proxy/units.h"

namespace holdfast::proxy {
namespace {

struct EraseCommand {
  FilterOptions filter;
  std::string reason;
  bool with_held = false, is_dry = false, as_json = false;
};

bool has_held(const journal::Entry& entry) {
  return std::any_of(entry.message.recipients.begin(), entry.message.recipients.end(),
                     [](const journal::Recipient& one) { return one.outcome == journal::Outcome::held; });
}

void print_entry(const journal::Entry& entry, const char* note) {
  fmt::print(stderr, "{:>8}  {}  <{}>  {} bytes{}\n", entry.id, format_time(entry.message.time_us), escape(entry.message.mail_from),
             entry.message.size, note);
}

int erase(const std::string& config_path, const EraseCommand& command) {
  const FilterOptions& f = command.filter;
  bool names_nobody = f.ids.empty() && f.sender.empty() && f.recipient.empty() && f.message_id.empty();
  if (names_nobody) return fail({ErrorCode::invalid, "say whose mail, or which: --recipient, --sender, --message-id or --id"}), EX_USAGE;
  Result<Config> config = load_config(config_path);
  if (!config) return fail(config.error());
  auto filter = f.filter();
  if (!filter) return fail(filter.error()), EX_USAGE;
  std::vector<journal::RecordId> ids;
  std::vector<journal::Entry> held;
  std::uint64_t damaged = 0;
  {
    auto reader = open_reader(config_path);
    if (!reader) return fail(reader.error());
    auto take = [&](const journal::Entry& entry) {
      ids.push_back(entry.id);
      if (has_held(entry)) held.push_back(entry);
      if (command.is_dry) print_entry(entry, has_held(entry) ? ", HELD" : "");
      return true;
    };
    auto named = f.named(**reader, *filter);
    if (!named) return fail(named.error());
    std::for_each(named->begin(), named->end(), take);
    if (f.ids.empty())
      if (Status read = (*reader)->each(*filter, false, take); !read) return fail(read.error());
    damaged = (*reader)->damaged();
  }
  if (command.is_dry) {
    fmt::print(stderr, "{} entries would be erased, {} of them held; nothing was changed\n", ids.size(), held.size());
    return warn_of_damage(damaged);
  }
  if (!held.empty() && !command.with_held) {
    for (const journal::Entry& entry : held) print_entry(entry, "");
    return fail({ErrorCode::busy, fmt::format("{} of these entries are held for delivery: deliver or drop them first, or "
                                              "erase them undelivered with --including-held. Nothing was changed",
                                              held.size())});
  }
  // Also when there are none: an erasure that was interrupted is finished on the way.
  auto done = do_job(*config, "/journal/erase", {{"ids", ids}, {"reason", command.reason}, {"with_held", command.with_held}}, "erasing",
                     [&](journal::Journal& journal) -> Result<Json> {
                       ProgressBar bar("erasing");
                       auto erased = journal.erase(ids, own_name(), command.reason, [&](double share) { bar.show(share); });
                       if (!erased) return erased.error();
                       return Json{{"entries", erased->entries}, {"segments", erased->segments}, {"record", erased->record}};
                     });
  if (!done && done.error().code == ErrorCode::busy) return fail(done.error());
  if (!done) return fail({done.error().code, done.error().message + "; the same command erases what is left"});
  if (command.as_json)
    fmt::print("{}\n", to_line(*done));
  else if (ids.empty())
    fmt::print("no entry matches; nothing was erased{}\n", (*done)["segments"] > 0 ? ", but an erasure that had been interrupted was finished" : "");
  else
    fmt::print("{} entries erased; {} segments rewritten under new keys; on record as {}\n", (*done)["entries"].get<std::uint64_t>(),
               (*done)["segments"].get<std::uint64_t>(), (*done)["record"].get<std::uint64_t>());
  return warn_of_damage(damaged);
}

int prune(const std::string& config_path, const std::string& older_than, const std::string& reason) {
  Result<Config> config = load_config(config_path);
  if (!config) return fail(config.error());
  std::optional<Duration> age = parse_duration(older_than);
  if (!older_than.empty() && !age) return fail({ErrorCode::invalid, fmt::format("\"{}\" is no duration; write 90d", older_than)}), EX_USAGE;
  if (!age && config->journal.retention == Duration(0))
    return fail({ErrorCode::invalid, "journal.retention is not set; say how old with --older-than"}), EX_USAGE;
  std::int64_t before_us = journal::now_us() - std::chrono::duration_cast<std::chrono::microseconds>(age.value_or(config->journal.retention)).count();
  auto done =
      do_job(*config, "/journal/prune", {{"before", before_us}, {"reason", reason}}, "pruning", [&](journal::Journal& journal) -> Result<Json> {
        auto pruned = journal.prune(before_us, own_name(), reason);
        if (!pruned) return pruned.error();
        return Json{{"segments", pruned->segments}, {"emptied", pruned->emptied}, {"stays", pruned->stays}};
      });
  if (!done) return fail(done.error());
  std::string stays = (*done)["stays"].get<std::string>();
  fmt::print("{} segments removed, {} emptied{}\n", (*done)["segments"].size(), (*done)["emptied"].size(),
             stays.empty() ? "" : "; " + printable(stays));
  return EX_OK;
}

/// Records of one kind, from all segments, in order.
int each_record(const std::string& config_path, journal::RecordKind kind, const std::function<void(const journal::Segment::StoredRecord&)>& print) {
  auto reader = open_reader(config_path);
  if (!reader) return fail(reader.error());
  Status read = (*reader)->each_record(kind, {}, print);
  return read ? EX_OK : fail(read.error());
}

int accesses(const std::string& config_path, bool as_json) {
  return each_record(config_path, journal::RecordKind::access, [as_json](const journal::Segment::StoredRecord& record) {
    auto access = journal::decode_access(record.encoded);
    if (!access) return;
    if (as_json)
      fmt::print("{}\n", to_line({{"id", record.id},
                                  {"time", format_time(access->time_us)},
                                  {"by", access->by},
                                  {"command", access->command},
                                  {"reason", access->reason},
                                  {"entries", access->entries},
                                  {"ids", access->examples}}));
    else
      fmt::print("{:>8}  {}  by {}: {}: {} entries{}\n", record.id, format_time(access->time_us), escape(access->by), escape(access->command),
                 access->entries, access->reason.empty() ? "" : ": " + escape(access->reason));
  });
}

int erasures(const std::string& config_path, bool as_json) {
  return each_record(config_path, journal::RecordKind::erasure, [as_json](const journal::Segment::StoredRecord& record) {
    auto erasure = journal::decode_erasure(record.encoded);
    if (!erasure) return;
    if (as_json)
      fmt::print("{}\n", to_line({{"id", record.id},
                                  {"time", format_time(erasure->time_us)},
                                  {"by", erasure->by},
                                  {"reason", erasure->reason},
                                  {"records", erasure->records}}));
    else
      fmt::print("{:>8}  {}  by {}: {}  ({} records)\n", record.id, format_time(erasure->time_us), escape(erasure->by), escape(erasure->reason),
                 erasure->records.size());
  });
}

}  // namespace

void add_erase_commands(CLI::App& group, const std::string& config, int& exit_code) {
  // Options live as long as the program.
  static EraseCommand command;
  static std::string older_than, reason;
  static bool as_json = false;
  CLI::App* app = group.add_subcommand("erase", "erase entries for good; the chain and all published heads stay verifiable");
  command.filter.add_to(*app);
  command.filter.add_ids_to(*app);
  app->add_option("--reason", command.reason, "why; goes into the journal")->required();
  app->add_flag("--including-held", command.with_held, "also mail that is still to be delivered");
  app->add_flag("--dry-run", command.is_dry, "say what would be erased, and do nothing");
  app->add_flag("--json", command.as_json, "as JSON");
  app->callback([&config, &exit_code] { exit_code = erase(config, command); });

  app = group.add_subcommand("prune",
                             "remove whole segments that are older than the retention, never one with held mail; those behind it lose their mail");
  app->add_option("--older-than", older_than, "90d; default: journal.retention");
  app->add_option("--reason", reason, "why; goes into the journal")->required();
  app->callback([&config, &exit_code] { exit_code = prune(config, older_than, reason); });

  app = group.add_subcommand("erasures", "what was erased or pruned: when, by whom and why");
  app->add_flag("--json", as_json, "one JSON object a line");
  app->callback([&config, &exit_code] { exit_code = erasures(config, as_json); });

  app = group.add_subcommand("accesses", "who has read content: when, with which command, and why");
  app->add_flag("--json", as_json, "one JSON object a line");
  app->callback([&config, &exit_code] { exit_code = accesses(config, as_json); });
}

}  // namespace holdfast::proxy
