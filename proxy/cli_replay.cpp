// `holdfast journal replay`.
#include <fmt/format.h>
#include <sysexits.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <thread>

#include "proxy/cli.h"
#include "proxy/cli_filter.h"
#include "proxy/journal_access.h"
#include "proxy/journal_report.h"
#include "proxy/json.h"
#include "proxy/log.h"
#include "proxy/progress_bar.h"
#include "proxy/replay.h"

namespace holdfast::proxy {
namespace {

volatile std::sig_atomic_t was_interrupted = 0;

/// The second time, the signal does what it always does.
void on_interrupt(int signal) {
  was_interrupted = 1;
  std::signal(signal, SIG_DFL);
}

const char* to_string(ReplayResult::State state) {
  switch (state) {
    case ReplayResult::State::sent: return "sent";
    case ReplayResult::State::refused: return "refused";
    case ReplayResult::State::failed: return "failed";
  }
  return "failed";
}

/// Reads the entries in order, as fast as allowed, and keeps account.
class Job : public ReplayJob {
 public:
  Job(journal::Reader& reader, std::vector<journal::RecordId> ids, const ReplayOptions& options, std::string hostname, ReplayProgress& progress,
      bool as_json)
      : reader_(reader),
        ids_(std::move(ids)),
        options_(options),
        hostname_(std::move(hostname)),
        progress_(progress),
        as_json_(as_json),
        bar_("replaying") {}

  std::unique_ptr<ReplayItem> next() override {
    while (position_ < ids_.size() && !was_interrupted && failure) {
      journal::RecordId id = ids_[position_++];
      auto entry = reader_.entry_as_written(id);
      if (!entry) {
        done({id, ReplayResult::State::failed, entry.error().message, {}});
        continue;
      }
      std::unique_ptr<ReplayItem> item = make_item(std::move(*entry));
      if (item->recipients.empty()) {
        ++before;
        continue;
      }
      wait_for_turn();
      if (!was_interrupted) return item;
    }
    return nullptr;
  }

  void done(const ReplayResult& result) override {
    ++finished_;
    if (!result.served.empty())
      if (Status noted = progress_.note(result.id, result.served, result.file_size); !noted) failure = noted;
    if (result.state == ReplayResult::State::sent)
      ++sent;
    else
      ++failed;
    last = result.id;
    if (as_json_)
      say(to_line({{"id", result.id}, {"result", to_string(result.state)}, {"detail", result.detail}}));
    else if (result.state != ReplayResult::State::sent)
      say(fmt::format("entry {}: {}: {}", result.id, to_string(result.state), escape(result.detail)));
    double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begun_).count();
    bar_.show(static_cast<double>(finished_ + before) / static_cast<double>(ids_.size()),
              fmt::format("{:.0f} a second", static_cast<double>(finished_) / seconds));
  }

  std::uint64_t sent = 0, failed = 0, before = 0;
  journal::RecordId last = 0;
  Status failure;

 private:
  /// Called by all who serve entries: what goes wrong ends the job, not the program.
  void say(const std::string& line) {
    bool is_written = std::fputs((line + "\n").c_str(), stdout) >= 0;
    if (!is_written) failure = Error{ErrorCode::io, fmt::format("cannot write the output: {}", std::strerror(errno))};
  }

  std::unique_ptr<ReplayItem> make_item(journal::Entry entry) {
    auto item = std::make_unique<ReplayItem>();
    item->entry = std::move(entry);
    journal::MessageRecord& message = item->entry.message;
    item->payload = payload_of(item->entry, [this, from = item->entry](std::uint32_t index) { return reader_.frame(from, index); });
    if (options_.is_report) {
      item->payload = journal_report(item->entry, item->payload, hostname_);
      message.mail_from.clear();
      message.mail_params = body_of_report(item->entry);
    }
    if (!options_.to_recipients.empty()) {
      message.recipients.clear();
      for (const std::string& address : options_.to_recipients) message.recipients.push_back({address, "", "", journal::Outcome::pending});
    }
    // Whom the primary refused never was a recipient; unless it refused all, and the entry is wanted all the
    // same.
    auto is_wanted = [](const journal::Recipient& one) { return one.outcome == journal::Outcome::pending || one.outcome == journal::Outcome::held; };
    bool wants_all = std::none_of(message.recipients.begin(), message.recipients.end(), is_wanted);
    for (std::uint32_t index = 0; index < message.recipients.size(); ++index)
      if ((wants_all || is_wanted(message.recipients[index])) && !progress_.has(item->entry.id, index)) item->recipients.push_back(index);
    return item;
  }

  void wait_for_turn() {
    if (options_.rate <= 0) return;
    while (!was_interrupted && std::chrono::steady_clock::now() < turn_)
      std::this_thread::sleep_until(std::min(turn_, std::chrono::steady_clock::now() + std::chrono::milliseconds(50)));
    turn_ = std::max(turn_, std::chrono::steady_clock::now()) +
            std::chrono::duration_cast<std::chrono::steady_clock::duration>(std::chrono::duration<double>(1 / options_.rate));
  }

  journal::Reader& reader_;
  std::vector<journal::RecordId> ids_;
  const ReplayOptions& options_;
  std::string hostname_;
  ReplayProgress& progress_;
  bool as_json_;
  ProgressBar bar_;
  std::size_t position_ = 0;
  std::uint64_t finished_ = 0;
  std::chrono::steady_clock::time_point begun_ = std::chrono::steady_clock::now(), turn_ = begun_;
};

struct ReplayCommand {
  FilterOptions filter;
  ReplayOptions options;
  std::string as, progress, reason;
  bool is_dry = false, as_json = false;
};

std::string digest_of(const Json& all) { return journal::to_hex(journal::view(journal::sha256(to_line(all)))).substr(0, 24); }

/// What the replay goes to, and how.
std::string target_of(const ReplayCommand& command) { return digest_of({command.options.to, command.options.to_recipients, command.as}); }

/// The same command has the same name, whatever the order of its options.
std::string name_of(const ReplayCommand& command) {
  const FilterOptions& f = command.filter;
  Json all = {command.options.to,
              command.options.to_recipients,
              command.as,
              f.since,
              f.until,
              f.sender,
              f.recipient,
              f.message_id,
              f.outcome,
              f.route,
              f.direction,
              f.ids};
  return digest_of(all);
}

Result<ReplayProgress> open_progress(const ReplayCommand& command, const std::string& journal) {
  if (!command.progress.empty()) return ReplayProgress::open(command.progress, target_of(command));
  std::string folder = journal + "/replays";
  if (Status made = journal::make_folder(folder); !made)
    return Error{made.error().code, made.error().message + "; name a file for the progress with --progress"};
  return ReplayProgress::open(folder + "/" + name_of(command), target_of(command));
}

Result<std::vector<journal::RecordId>> wanted_ids(journal::Reader& reader, const FilterOptions& options) {
  auto filter = options.filter();
  if (!filter) return filter.error();
  if (options.ids.empty()) return reader.ids(*filter);
  auto named = options.named(reader, *filter);
  if (!named) return named.error();
  std::vector<journal::RecordId> ids;
  for (const journal::Entry& entry : *named) ids.push_back(entry.id);
  return ids;
}

int dry_run(journal::Reader& reader, const std::vector<journal::RecordId>& ids, bool as_json) {
  std::uint64_t bytes = 0;
  for (journal::RecordId id : ids) {
    auto entry = reader.entry_as_written(id);
    if (!entry) return fail(entry.error());
    bytes += entry->message.size;
    if (as_json)
      fmt::print("{}\n", to_line({{"id", id}, {"result", "would be sent"}, {"mail_from", entry->message.mail_from}, {"size", entry->message.size}}));
    else
      fmt::print("{:>8}  <{}>  {} bytes\n", id, escape(entry->message.mail_from), entry->message.size);
  }
  fmt::print(stderr, "{} entries, {:.1f} MiB would be replayed; nothing was sent\n", ids.size(), static_cast<double>(bytes) / (1 << 20));
  return warn_of_damage(reader.damaged());
}

Status check_form(const ReplayCommand& command) {
  if (command.as.empty()) return {};
  if (command.as != "journal-report")
    return Error{ErrorCode::invalid, fmt::format("\"{}\" is no form of replay; write --as journal-report, or leave it out", command.as)};
  bool is_mail = command.options.to.starts_with("smtp") || command.options.to.starts_with("lmtp");
  if (is_mail && command.options.to_recipients.empty())
    return Error{ErrorCode::invalid, "a journal report goes to an archive's mailbox: name it with --to-recipient"};
  return {};
}

/// What came of it, for a person. is_cut: it ended before its end, for what ran says or since it was interrupted.
std::string account_of(const Job& job, const std::string& to, const Status& ran, bool is_cut) {
  std::string account = fmt::format("{} entries replayed to {}", job.sent, escape(to));
  if (job.before > 0) account += fmt::format(", {} were there from an earlier run", job.before);
  if (job.failed > 0) account += fmt::format(", {} FAILED", job.failed);
  if (is_cut)
    account +=
        fmt::format("; stopped {}: {}. The same command goes on from here",
                    job.last ? fmt::format("after entry {}", job.last) : "before the first entry", ran ? "interrupted" : escape(ran.error().message));
  else if (job.failed > 0)
    account += "; the same command tries just those again";
  return account;
}

int code_of_cut(const Status& ran) {
  bool is_disk = !ran && (ran.error().code == ErrorCode::no_space || ran.error().code == ErrorCode::io);
  return is_disk ? EX_IOERR : EX_TEMPFAIL;
}

int replay(const std::string& config_path, ReplayCommand& command) {
  if (Status form = check_form(command); !form) return fail(form.error()), EX_USAGE;
  command.options.is_report = !command.as.empty();
  Result<Config> config = load_config(config_path);
  if (!config) return fail(config.error());
  configure_log({.level = LogLevel::error});
  auto reader = open_reader(*config);
  if (!reader) return fail(reader.error());
  auto ids = wanted_ids(**reader, command.filter);
  if (!ids) return fail(ids.error()), ids.error().code == ErrorCode::invalid ? EX_USAGE : EX_DATAERR;
  if (command.is_dry) return dry_run(**reader, *ids, command.as_json);
  auto progress = open_progress(command, config->journal.path);
  if (!progress && progress.error().code == ErrorCode::invalid) return fail(progress.error()), EX_CANTCREAT;
  if (!progress) return fail(progress.error());
  auto target = open_target(command.options, *config, *progress);
  if (!target) return fail(target.error()), target.error().code == ErrorCode::invalid ? EX_USAGE : EX_CANTCREAT;
  if (Status recorded = record_access(*config, "journal replay --to " + command.options.to, command.reason, *ids); !recorded)
    return fail(recorded.error());
  std::signal(SIGINT, on_interrupt);
  std::signal(SIGTERM, on_interrupt);
  std::signal(SIGPIPE, SIG_IGN);
  auto job = std::make_unique<Job>(**reader, std::move(*ids), command.options, config->hostname, *progress, command.as_json);
  Status ran = (*target)->run(*job);
  if (ran && !job->failure) ran = job->failure;
  bool is_cut = !ran || was_interrupted;
  std::string account = account_of(*job, command.options.to, ran, is_cut);
  std::uint64_t failed = job->failed, damaged = (*reader)->damaged();
  job.reset();  // and with it the progress bar
  fmt::print(stderr, "{}\n", account);
  int code = warn_of_damage(damaged);
  if (!is_cut && failed == 0) progress->finish();
  if (is_cut) return code_of_cut(ran);
  return failed > 0 ? EX_UNAVAILABLE : code;
}

}  // namespace

void add_replay_command(CLI::App& group, const std::string& config, int& exit_code) {
  static ReplayCommand command;  // lives as long as the program
  CLI::App* app = group.add_subcommand("replay", "send or write entries as they were to somewhere else; run again after an interruption, it goes on");
  app->add_option("--to", command.options.to, "smtp://HOST:PORT, smtps://, lmtp://, maildir:DIR, mbox:FILE or eml:DIR")->required();
  command.filter.add_to(*app);
  command.filter.add_ids_to(*app);
  app->add_option("--to-recipient", command.options.to_recipients,
                  "deliver to this address instead of the original recipients; may be given several times");
  app->add_option("--as", command.as, "journal-report: the envelope's facts as the outer message, the original attached");
  app->add_option("--rate", command.options.rate, "entries a second, at most")->check(CLI::NonNegativeNumber);
  app->add_option("--concurrency", command.options.concurrency, "at once: connections for smtp, smtps and lmtp, files for maildir and eml")
      ->capture_default_str()
      ->check(CLI::Range(1, 1000));
  app->add_option("--progress", command.progress, "the file that remembers how far it has come; default: one in journal.path/replays");
  app->add_option("--reason", command.reason, "why; goes into the journal's record of who read what");
  app->add_flag("--dry-run", command.is_dry, "say what would be replayed, and do nothing");
  app->add_flag("--json", command.as_json, "one JSON object an entry");
  app->callback([&config, &exit_code] { exit_code = replay(config, command); });
}

}  // namespace holdfast::proxy
