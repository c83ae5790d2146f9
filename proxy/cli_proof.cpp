// `holdfast journal verify`, `head`, `seal` and `proof`: what the journal can prove.
#include <fmt/format.h>
#include <sysexits.h>

#include <chrono>
#include <fstream>
#include <sstream>
#include <thread>

#include "journal/head.h"
#include "journal/journal.h"
#include "journal/proof.h"
#include "journal/verify.h"
#include "proxy/admin_client.h"
#include "proxy/cli.h"
#include "proxy/cli_filter.h"
#include "proxy/journal_access.h"
#include "proxy/json.h"
#include "proxy/log.h"
#include "proxy/progress_bar.h"
#include "proxy/units.h"

namespace holdfast::proxy {
namespace {

struct VerifyCommand {
  std::string key, heads, since, proof, content;
  bool as_json = false;
};

Result<std::optional<journal::PublicKey>> read_signer(const std::string& path) {
  std::optional<journal::PublicKey> none;
  if (path.empty()) return none;
  auto key = journal::PublicKey::read(path);
  if (!key) return key.error();
  return std::optional(*key);
}

Result<std::string> read_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  if (!file) return Error{ErrorCode::not_found, path + ": cannot be read"};
  if (file.peek() != std::ifstream::traits_type::eof()) text << file.rdbuf();
  return text.str();
}

int print_verification(const journal::Verification& result, bool as_json) {
  for (const journal::Finding& finding : result.findings) {
    if (as_json)
      fmt::print("{}\n", to_line({{"segment", finding.segment}, {"record", finding.record}, {"problem", finding.what}}));
    else
      fmt::print("DAMAGED {}{}: {}\n", finding.segment ? fmt::format("segment {}", finding.segment) : "catalog",
                 finding.record ? fmt::format(", record {}", finding.record) : "", escape(finding.what));
  }
  bool is_well = result.findings.empty();
  if (as_json)
    fmt::print("{}\n", to_line({{"ok", is_well},
                                {"segments", result.segments},
                                {"records", result.records},
                                {"entries", result.entries},
                                {"heads", result.heads},
                                {"content_bytes", result.content_bytes},
                                {"findings", result.findings.size()},
                                {"last_link", result.last_link}}));
  else
    fmt::print(
        "{}: {} entries, {} records in {} segments, {} signed heads, {:.1f} MiB of content; the chain ends "
        "in {}\n",
        is_well ? "all is well" : "the journal is damaged", result.entries, result.records, result.segments, result.heads,
        static_cast<double>(result.content_bytes) / (1 << 20), result.last_link);
  return is_well ? EX_OK : EX_DATAERR;
}

/// Without the journal and without its configuration.
int verify_proof(const VerifyCommand& command) {
  auto signer = read_signer(command.key);
  if (!signer) return fail(signer.error());
  auto text = read_file(command.proof);
  if (!text) return fail(text.error());
  auto proven = journal::check_proof(*text, *signer ? &**signer : nullptr);
  if (!proven) return fail(proven.error());
  const journal::MessageRecord& message = proven->message;
  if (!command.content.empty()) {
    auto content = read_file(command.content);
    if (!content) return fail(content.error());
    if (journal::sha256(*content) != message.content_hash)
      return fail({ErrorCode::corrupt, fmt::format("{}: is not the content that was journaled (SHA-256 differs)", command.content)});
  }
  if (command.as_json) {
    Json recipients = Json::array();
    for (const journal::Recipient& one : message.recipients) recipients.push_back(one.address);
    fmt::print("{}\n", to_line({{"ok", true},
                                {"time", format_time(message.time_us)},
                                {"mail_from", message.mail_from},
                                {"recipients", recipients},
                                {"size", message.size},
                                {"sha256", journal::to_hex(journal::view(message.content_hash))},
                                {"segment", proven->head.segment},
                                {"sealed", format_time(proven->head.time_us)},
                                {"signer", proven->head.key},
                                {"signer_given", signer->has_value()}}));
    return EX_OK;
  }
  fmt::print("the proof holds: a message from <{}>, received {}, {} bytes, SHA-256 {}\n", escape(message.mail_from), format_time(message.time_us),
             message.size, journal::to_hex(journal::view(message.content_hash)));
  for (const journal::Recipient& one : message.recipients) fmt::print("  to <{}>\n", escape(one.address));
  fmt::print("is record {} of {} in segment {}, sealed {}, signed with the key {}\n", proven->index + 1, proven->head.records, proven->head.segment,
             format_time(proven->head.time_us), proven->head.key);
  if (!command.content.empty()) fmt::print("{} is its content\n", escape(command.content));
  if (!*signer) fmt::print("compare the key with one that you have from elsewhere, or give it with --key\n");
  return EX_OK;
}

int verify(const std::string& config_path, const VerifyCommand& command) {
  if (!command.proof.empty()) return verify_proof(command);
  Result<JournalConfig> config = journal_config(config_path);
  if (!config) return fail(config.error());
  journal::VerifyOptions options;
  if (command.key.empty()) options.key = config->key;
  options.heads_path = command.heads;
  auto signer = read_signer(command.key);
  if (!signer) return fail(signer.error());
  options.signer = *signer;
  if (!command.since.empty()) {
    FilterOptions times;
    times.since = command.since;
    auto filter = times.filter();
    if (!filter) return fail(filter.error()), EX_USAGE;
    options.since_us = *filter->since_us;
  }
  stand_back();
  Result<journal::Verification> result = [&] {
    ProgressBar bar("verifying");
    return journal::verify(config->path, options, [&](const journal::VerifyProgress& progress) {
      bar.show(progress.bytes_total ? static_cast<double>(progress.bytes_done) / static_cast<double>(progress.bytes_total) : 1);
    });
  }();
  if (!result) return fail(result.error());
  return print_verification(*result, command.as_json);
}

int print_heads(const std::string& config_path, std::uint64_t segment, bool all, bool as_json) {
  Result<JournalConfig> config = journal_config(config_path);
  if (!config) return fail(config.error());
  std::vector<std::uint32_t> numbers = journal::list_heads(config->path);
  if (numbers.empty()) return fail({ErrorCode::not_found, "no segment is sealed yet; run: holdfast journal seal"});
  if (segment != 0)
    numbers = {static_cast<std::uint32_t>(segment)};
  else if (!all)
    numbers = {numbers.back()};
  for (std::uint32_t number : numbers) {
    auto line = journal::read_head(config->path, number);
    if (!line) return fail(line.error());
    if (!as_json) {
      fmt::print("{}\n", *line);
      continue;
    }
    auto head = journal::parse_head(*line);
    if (!head) return fail(head.error());
    fmt::print("{}\n", to_line({{"segment", head->segment},
                                {"records", head->records},
                                {"last_link", journal::to_hex(journal::view(head->last))},
                                {"root", journal::to_hex(journal::view(head->root))},
                                {"sealed", format_time(head->time_us)},
                                {"key", head->key},
                                {"line", *line}}));
  }
  return EX_OK;
}

/// What keeps whoever makes the heads from it, if anything: the daemon, or without one this process.
Status look_at_sealing(const Config& config, const Reached& by) {
  std::string problem;
  if (by.journal) {
    problem = by.journal->writer().state().roll_problem;
  } else {
    auto status = ask_admin(config.admin_socket, "/status");
    if (!status) return Error{ErrorCode::unavailable, "the daemon ended; the next start seals it, or run this again"};
    problem = (*status)["journal"]["segment_problem"].get<std::string>();
  }
  if (problem.empty()) return {};
  return Error{ErrorCode::unavailable, problem + "; then run this again"};
}

/// Waits until the segment has its head, and prints it.
int wait_for_head(const Config& config, std::uint32_t segment, const Reached& by) {
  constexpr auto patience = std::chrono::minutes(10);
  constexpr auto glance = std::chrono::seconds(1);
  using SteadyClock = std::chrono::steady_clock;
  auto end = SteadyClock::now() + patience, next_glance = SteadyClock::now() + glance;
  while (SteadyClock::now() < end) {
    if (auto line = journal::read_head(config.journal.path, segment)) {
      fmt::print("{}\n", *line);
      return EX_OK;
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    if (SteadyClock::now() < next_glance) continue;
    next_glance = SteadyClock::now() + glance;
    if (Status well = look_at_sealing(config, by); !well)
      return fail({well.error().code, fmt::format("segment {} is not sealed: {}", segment, well.error().message)});
  }
  return fail({ErrorCode::unavailable, fmt::format("segment {} has no head yet; see the daemon's log, or holdfast journal verify", segment)});
}

/// Asks the daemon; without one, does it itself.
int seal(const std::string& config_path) {
  Result<Config> config = load_config(config_path);
  if (!config) return fail(config.error());
  auto reached = ask_or_open(*config, "/journal/seal");
  if (!reached) return fail(reached.error());
  std::uint32_t segment = reached->journal ? reached->journal->seal() : reached->answer["segment"].get<std::uint32_t>();
  if (segment != 0) return wait_for_head(*config, segment, *reached);
  // What was ended before may still wait for its head.
  auto numbers = journal::list_segments(config->journal.path);
  if (!numbers) return fail(numbers.error());
  if (numbers->size() > 1)
    if (int code = wait_for_head(*config, (*numbers)[numbers->size() - 2], *reached); code != EX_OK) return code;
  fmt::print(stderr, "the newest segment is empty: all is sealed already\n");
  return EX_OK;
}

int proof(const std::string& config_path, journal::RecordId id) {
  auto reader = open_reader(config_path);
  if (!reader) return fail(reader.error());
  auto entry = (*reader)->entry_as_written(id);
  if (!entry) return fail(entry.error());
  auto segment = (*reader)->segment(entry->segment);
  if (!segment) return fail(segment.error());
  auto text = journal::make_proof((*reader)->journal(), **segment, id);
  if (!text) return fail(text.error());
  fmt::print("{}", *text);
  return EX_OK;
}

}  // namespace

void add_proof_commands(CLI::App& group, const std::string& config, int& exit_code) {
  // Options live as long as the program.
  static VerifyCommand checking;
  static std::uint64_t id = 0, segment = 0;
  static bool all = false, as_json = false;
  CLI::App* command = group.add_subcommand("verify", "check chain, hashes, tags, signed heads and stored bytes; exits 65 when anything is damaged");
  command->add_option("--key", checking.key, "a public key (PEM): check all that needs no decryption key, with this key's signatures alone");
  command->add_option("--heads", checking.heads, "a file of published heads: the journal must contain them all");
  command->add_option("--since", checking.since, "leave out segments that ended before this time");
  command->add_option("--proof", checking.proof, "check this proof instead, without any journal");
  command->add_option("--content", checking.content, "with --proof: this file must be the proven message's content");
  command->add_flag("--json", checking.as_json, "one JSON object a line");
  command->callback([&config, &exit_code] { exit_code = verify(config, checking); });

  command = group.add_subcommand("head", "the signed head of the last sealed segment, for publishing");
  command->add_option("SEGMENT", segment, "of this segment instead");
  command->add_flag("--all", all, "of all sealed segments");
  command->add_flag("--json", as_json, "one JSON object a line");
  command->callback([&config, &exit_code] { exit_code = print_heads(config, segment, all, as_json); });

  group.add_subcommand("seal", "end the newest segment now, and sign its head")->callback([&config, &exit_code] { exit_code = seal(config); });

  command = group.add_subcommand("proof", "a small file with which anyone can check that an entry was in the journal");
  command->add_option("ID", id, "the entry's number")->required();
  command->callback([&config, &exit_code] { exit_code = proof(config, id); });
}

}  // namespace holdfast::proxy
