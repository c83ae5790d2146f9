#include "proxy/cli_filter.h"

#include <fmt/format.h>
#include <glib.h>

#include <pwd.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <thread>

#include "journal/waiting_ticket.h"
#include "proxy/admin.h"
#include "proxy/publish_heads.h"

namespace holdfast::proxy {
namespace {

/// A time as RFC 3339 writes it, a date, or a duration back from now ("2h").
std::optional<std::int64_t> parse_time(const std::string& text) {
  if (std::optional<Duration> ago = parse_duration(text))
    return journal::now_us() - std::chrono::duration_cast<std::chrono::microseconds>(*ago).count();
  std::string full = text.size() == 10 ? text + "T00:00:00Z" : text;
  GTimeZone* utc = g_time_zone_new_utc();
  GDateTime* time = g_date_time_new_from_iso8601(full.c_str(), utc);
  g_time_zone_unref(utc);
  if (!time) return std::nullopt;
  std::int64_t us = g_date_time_to_unix(time) * 1000000 + g_date_time_get_microsecond(time);
  g_date_time_unref(time);
  return us;
}

}  // namespace

void FilterOptions::add_to(CLI::App& command) {
  command.add_option("--since", since, "from this time on: 2026-01-31, 2026-01-31T08:00:00Z, or 2h for two hours ago");
  command.add_option("--until", until, "before this time");
  command.add_option("--sender", sender, "the envelope's sender");
  command.add_option("--recipient", recipient, "one of the envelope's recipients");
  command.add_option("--message-id", message_id, "the Message-ID header");
  command.add_option("--outcome", outcome, "forwarded, rejected, deferred, abandoned, ...: of any recipient");
  command.add_option("--route", route, "the route's name");
  command.add_option("--direction", direction, "inbound or outbound");
}

Result<journal::Filter> FilterOptions::filter() const {
  journal::Filter result;
  auto set = [](const std::string& text, std::optional<std::string>& slot) {
    if (!text.empty()) slot = text;
  };
  set(sender, result.sender);
  set(recipient, result.recipient);
  set(message_id, result.message_id);
  set(route, result.route);
  for (auto [text, slot] : {std::pair(&since, &result.since_us), std::pair(&until, &result.until_us)}) {
    if (text->empty()) continue;
    *slot = parse_time(*text);
    if (!*slot) return Error{ErrorCode::invalid, fmt::format("\"{}\" is no time; write 2026-01-31, 2026-01-31T08:00:00Z, or 2h for two hours ago", *text)};
  }
  if (!outcome.empty()) {
    result.outcome = journal::parse_outcome(outcome);
    if (!result.outcome) return Error{ErrorCode::invalid, fmt::format("\"{}\" is no outcome; see holdfast journal list --help", outcome)};
  }
  if (direction == "inbound") result.direction = journal::Direction::inbound;
  if (direction == "outbound") result.direction = journal::Direction::outbound;
  if (!direction.empty() && !result.direction) return Error{ErrorCode::invalid, fmt::format("\"{}\" is no direction; write inbound or outbound", direction)};
  return result;
}

Result<JournalConfig> journal_config(const std::string& config_path) {
  Result<Config> config = load_config(config_path);
  if (!config) return Error{ErrorCode::invalid, config.error().message};
  return config->journal;
}

Result<std::unique_ptr<journal::Reader>> open_reader(const std::string& config_path) {
  Result<JournalConfig> config = journal_config(config_path);
  if (!config) return config.error();
  return journal::Reader::open(config->path, config->key_file);
}

void stand_back() {
  constexpr int which_process = 1, idle_class = 3 << 13;  // as linux/ioprio.h has them
  ::setpriority(PRIO_PROCESS, 0, 19);
  ::syscall(SYS_ioprio_set, which_process, 0, idle_class);
}

std::string own_name() {
  const passwd* user = ::getpwuid(::geteuid());
  return user ? fmt::format("user {}", user->pw_name) : fmt::format("user {}", ::geteuid());
}

Status record_access(const Config& config, const std::string& command, const std::string& reason, const std::vector<journal::RecordId>& ids) {
  if (!config.journal.access_log || ids.empty()) return {};
  std::vector<journal::RecordId> examples(ids.begin(), ids.begin() + static_cast<std::ptrdiff_t>(std::min<std::size_t>(ids.size(), 100)));
  if (!config.admin_socket.empty()) {
    auto told = ask_admin(config.admin_socket, "/journal/access", {{"command", command}, {"reason", reason}, {"entries", ids.size()}, {"ids", examples}});
    if (told) return {};
  }
  auto unrecorded = [](const Error& error) -> Status {
    if (error.code == ErrorCode::corrupt || error.code == ErrorCode::wrong_key || error.code == ErrorCode::not_found) return error;
    fmt::print(stderr, "holdfast: this reading is not on record: {}\n", error.message);
    return {};
  };
  auto journal = open_journal(config);
  // Another reader may be putting itself on record at this moment.
  for (int tries = 0; !journal && journal.error().code == ErrorCode::busy && tries < 50; ++tries) {
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    journal = open_journal(config);
  }
  if (!journal) return unrecorded(journal.error());
  journal::AccessRecord access{journal::now_us(), own_name(), command, reason, ids.size(), examples};
  auto written = journal::write_record((*journal)->writer(), journal::RecordKind::access, journal::encode(access));
  return written ? Status() : unrecorded(written.error());
}

Result<std::unique_ptr<journal::Journal>> open_journal(const Config& config, journal::Writer::OnEvent on_event) {
  journal::JournalOptions options;
  options.path = config.journal.path;
  options.key_path = config.journal.key_file;
  options.segment_size = config.journal.segment_size;
  options.segment_age_us = std::chrono::duration_cast<std::chrono::microseconds>(config.journal.segment_age).count();
  options.publish_head = head_publisher(config.journal.publish_heads);
  return journal::Journal::open(options, std::move(on_event));
}

}  // namespace holdfast::proxy
