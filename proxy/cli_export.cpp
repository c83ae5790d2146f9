// `holdfast journal export`: one entry's content, or all of a person's (GDPR Art. 15).
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <sysexits.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <set>

#include "journal/files.h"
#include "proxy/cli.h"
#include "proxy/cli_filter.h"
#include "proxy/journal_access.h"
#include "proxy/json.h"
#include "proxy/log.h"
#include "proxy/mime.h"
#include "proxy/progress_bar.h"
#include "proxy/replay.h"
#include "proxy/units.h"

namespace holdfast::proxy {
namespace {

struct ExportCommand {
  journal::RecordId id = 0;
  std::vector<std::string> addresses;  ///< of one person
  std::string folder, reason;
};

/// Content on its way out: the exact bytes; but to a terminal, on which a message could do things, lines that can only be read.
class Output {
 public:
  /// Error: io.
  Status write(std::string_view piece) {
    if (!is_terminal_) return put(piece);
    line_ += piece;
    std::string text;
    std::size_t begin = 0;
    for (std::size_t end; (end = line_.find('\n', begin)) != std::string::npos; begin = end + 1) {
      std::string_view line = std::string_view(line_).substr(begin, end - begin);
      if (line.ends_with('\r')) line.remove_suffix(1);
      text += shown(line) + "\n";
    }
    line_.erase(0, begin);
    return put(text);
  }

  /// After the last piece.
  Status end() {
    if (!is_terminal_) return {};
    if (!line_.empty())
      if (Status put_out = put(shown(line_) + "\n"); !put_out) return put_out;
    fmt::print(stderr, "holdfast: on a terminal control characters are shown as \\x1b; the exact bytes come in a file: > FILE\n");
    return {};
  }

 private:
  static Status put(std::string_view bytes) {
    if (journal::write_all(STDOUT_FILENO, bytes)) return {};
    return Error{ErrorCode::io, fmt::format("cannot write the output: {}", std::strerror(errno))};
  }

  /// Tabs are for reading, too.
  static std::string shown(std::string_view line) {
    std::string text;
    for (std::size_t tab; (tab = line.find('\t')) != std::string_view::npos; line.remove_prefix(tab + 1))
      text += printable(line.substr(0, tab)) + '\t';
    return text + printable(line);
  }

  const bool is_terminal_ = ::isatty(STDOUT_FILENO) != 0;
  std::string line_;  ///< what came of it so far
};

int export_content(const Config& config, journal::Reader& reader, const ExportCommand& command) {
  Result<journal::Entry> entry = reader.entry(command.id);
  if (!entry) return fail(entry.error());
  if (Status recorded = record_access(config, "journal export", command.reason, {command.id}); !recorded) return fail(recorded.error());
  journal::Sha256 hash;
  Output output;
  Status written;
  Status read = reader.content(*entry, [&](std::string_view piece) {
    hash.update(piece);
    written = output.write(piece);
    return static_cast<bool>(written);
  });
  if (written) written = output.end();
  if (!written) return fail(written.error());
  if (!read) return fail(read.error());
  if (hash.finish() != entry->message.content_hash)
    return fail({ErrorCode::corrupt, fmt::format("entry {}: what was written is not what was journaled (SHA-256 differs)", command.id)});
  return EX_OK;
}

/// RFC 4180. What a spreadsheet would take for a formula gets an apostrophe.
std::string csv_field(const std::string& text) {
  std::string field = "\"";
  if (!text.empty() && std::strchr("=+-@\t\r", text[0])) field += '\'';
  for (char c : text) {
    if (c == '"') field += '"';
    field += static_cast<unsigned char>(c) < ' ' ? ' ' : c;
  }
  return field + "\"";
}

/// All of one person's entries into a folder, with an index of them.
class SubjectJob : public ReplayJob {
 public:
  SubjectJob(journal::Reader& reader, const std::vector<journal::RecordId>& ids) : reader_(reader), ids_(ids), bar_("exporting") {}

  std::unique_ptr<ReplayItem> next() override {
    while (position_ < ids_.size()) {
      bar_.show(static_cast<double>(position_) / static_cast<double>(ids_.size()));
      auto entry = reader_.entry(ids_[position_++]);
      if (!entry) {
        problems.push_back(entry.error().message);
        continue;
      }
      auto item = std::make_unique<ReplayItem>();
      item->entry = std::move(*entry);
      item->payload = payload_of(item->entry, [this, from = item->entry](std::uint32_t frame) { return reader_.frame(from, frame); });
      add_to_index(item->entry);
      return item;
    }
    return nullptr;
  }

  void done(const ReplayResult& result) override {
    if (result.state != ReplayResult::State::sent) problems.push_back(fmt::format("entry {}: {}", result.id, result.detail));
  }

  Json index = Json::array();
  std::string csv = "id,time,direction,from,to,subject,message_id,size,sha256,file\r\n";
  std::vector<std::string> problems;

 private:
  void add_to_index(const journal::Entry& entry) {
    const journal::MessageRecord& message = entry.message;
    std::string to, file = fmt::format("{}.eml", entry.id), hash = journal::to_hex(journal::view(message.content_hash));
    std::string subject = decode_header_text(message.subject), message_id = decode_header_text(message.message_id);
    Json recipients = Json::array();
    for (const journal::Recipient& one : message.recipients) {
      to += (to.empty() ? "" : " ") + one.address;
      recipients.push_back({{"address", one.address}, {"outcome", journal::to_string(one.outcome)}});
    }
    index.push_back({{"id", entry.id},
                     {"time", format_time(message.time_us)},
                     {"direction", journal::to_string(message.direction)},
                     {"mail_from", message.mail_from},
                     {"recipients", recipients},
                     {"subject", subject},
                     {"message_id", message_id},
                     {"client", message.client},
                     {"size", message.size},
                     {"sha256", hash},
                     {"file", file}});
    csv += fmt::format("{},{},{},{},{},{},{},{},{},{}\r\n", entry.id, format_time(message.time_us), journal::to_string(message.direction),
                       csv_field(message.mail_from), csv_field(to), csv_field(subject), csv_field(message_id), message.size, hash, file);
  }

  journal::Reader& reader_;
  const std::vector<journal::RecordId>& ids_;
  ProgressBar bar_;
  std::size_t position_ = 0;
};

/// A file in the folder that is not of this export, if any: what is of somebody else would go out with it.
std::string stranger_in(const std::string& folder, const std::vector<journal::RecordId>& ids) {
  std::set<std::string> own{"index.json", "index.csv", "index.json.new", "index.csv.new"};
  for (journal::RecordId id : ids) {
    own.insert(fmt::format("{}.eml", id));
    own.insert(fmt::format(".{}.eml.part", id));  // left by one that was interrupted
  }
  std::error_code ignored;
  for (const auto& file : std::filesystem::directory_iterator(folder, ignored))
    if (std::string name = file.path().filename().string(); !own.contains(name)) return name;
  return "";
}

int export_subject(const Config& config, journal::Reader& reader, const ExportCommand& command) {
  std::vector<journal::RecordId> ids;
  for (const std::string& address : command.addresses) {
    journal::Filter sent, received;
    sent.sender = received.recipient = address;
    for (const journal::Filter& filter : {sent, received}) {
      auto found = reader.ids(filter);
      if (!found) return fail(found.error());
      ids.insert(ids.end(), found->begin(), found->end());
    }
  }
  const std::string person = fmt::format("{}", fmt::join(command.addresses, ", "));
  std::sort(ids.begin(), ids.end());
  ids.erase(std::unique(ids.begin(), ids.end()), ids.end());
  ReplayProgress unkept;
  auto target = open_file_target("eml", command.folder, config.journal.path, unkept);
  if (!target) return fail(target.error()), EX_CANTCREAT;
  auto lock = journal::lock_folder(command.folder);
  if (!lock) return fail(lock.error());
  if (std::string name = stranger_in(command.folder, ids); !name.empty())
    return fail({ErrorCode::invalid, fmt::format("{} holds {}, which is not of this export; name a folder of its own", command.folder, name)}),
           EX_CANTCREAT;
  if (Status recorded = record_access(config, "journal export --subject " + person, command.reason, ids); !recorded) return fail(recorded.error());
  auto job = std::make_unique<SubjectJob>(reader, ids);
  if (Status ran = (*target)->run(*job); !ran) return fail(ran.error());
  for (const auto& [name, text] : {std::pair(std::string("index.json"), job->index.dump(1, ' ', false, Json::error_handler_t::replace) + "\n"),
                                   std::pair(std::string("index.csv"), job->csv)})
    if (Status written = journal::write_file(command.folder + "/" + name, text); !written) return fail(written.error());
  std::vector<std::string> problems = std::move(job->problems);
  job.reset();  // and with it the progress bar
  for (const std::string& problem : problems) fmt::print(stderr, "holdfast: {}\n", escape(problem));
  fmt::print(stderr, "{} entries of {} exported to {}, with index.csv and index.json\n", ids.size() - problems.size(), escape(person),
             escape(command.folder));
  int code = warn_of_damage(reader.damaged());
  return problems.empty() ? code : EX_DATAERR;
}

int run(const std::string& config_path, const ExportCommand& command) {
  bool is_one = command.id != 0, is_person = !command.addresses.empty() && !command.folder.empty();
  if (is_one == is_person || (is_one && !command.addresses.empty()))
    return fail({ErrorCode::invalid, "name an entry, or a person with --subject ADDRESS --to DIR"}), EX_USAGE;
  Result<Config> config = load_config(config_path);
  if (!config) return fail(config.error());
  auto reader = open_reader(*config);
  if (!reader) return fail(reader.error());
  return is_one ? export_content(*config, **reader, command) : export_subject(*config, **reader, command);
}

}  // namespace

void add_export_command(CLI::App& group, const std::string& config, int& exit_code) {
  static ExportCommand command;  // lives as long as the program
  CLI::App* app = group.add_subcommand("export", "an entry's exact content to standard output, or all of a person's entries to a folder");
  app->add_option("ID", command.id, "the entry's number");
  app->add_option("--subject", command.addresses, "a person's address: all entries that it sent or received; may be said several times");
  app->add_option("--to", command.folder, "with --subject: the folder");
  app->add_option("--reason", command.reason, "why; goes into the journal's record of who read what");
  app->callback([&config, &exit_code] { exit_code = run(config, command); });
}

}  // namespace holdfast::proxy
