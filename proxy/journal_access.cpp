#include "proxy/journal_access.h"

#include <fmt/format.h>
#include <pwd.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sysexits.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <thread>

#include "failover/mailbox_store.h"
#include "journal/write_record.h"
#include "proxy/admin_client.h"
#include "proxy/publish_heads.h"

namespace holdfast::proxy {

Result<JournalConfig> journal_config(const std::string& config_path) {
  Result<Config> config = load_config(config_path);
  if (!config) return Error{ErrorCode::invalid, config.error().message};
  return config->journal;
}

Result<std::unique_ptr<journal::Reader>> open_reader(const std::string& config_path) {
  Result<Config> config = load_config(config_path);
  return config ? open_reader(*config) : Error{ErrorCode::invalid, config.error().message};
}

Result<std::unique_ptr<journal::Reader>> open_reader(const Config& config) {
  // What a client has been told is committed within some milliseconds: it is to be seen already. Without a daemon it all is.
  constexpr auto patience = std::chrono::milliseconds(500);
  if (!config.admin_socket.empty()) (void)ask_admin(config.admin_socket, "/journal/commit", Json::object(), patience);
  return journal::Reader::open(config.journal.path, config.journal.key);
}

void stand_back() {
  constexpr int last_of_its_class = 19, which_process = 1, best_effort_last = (2 << 13) | 7;  // as linux/ioprio.h has them
  ::setpriority(PRIO_PROCESS, 0, last_of_its_class);
  ::syscall(SYS_ioprio_set, which_process, 0, best_effort_last);
}

int warn_of_damage(std::uint64_t damaged) {
  if (damaged == 0) return EX_OK;
  fmt::print(stderr, "holdfast: {} damaged records or segments were left out; run: holdfast journal verify\n", damaged);
  return EX_DATAERR;
}

std::string own_name() {
  const passwd* user = ::getpwuid(::geteuid());
  return user ? fmt::format("user {}", user->pw_name) : fmt::format("user {}", ::geteuid());
}

Status record_access(const Config& config, const std::string& command, const std::string& reason, const std::vector<journal::RecordId>& ids) {
  if (!config.journal.access_log || ids.empty()) return {};
  std::vector<journal::RecordId> examples(ids.begin(), ids.begin() + static_cast<std::ptrdiff_t>(std::min<std::size_t>(ids.size(), 100)));
  auto unrecorded = [](const Error& error) -> Status {
    if (is_damage(error) || error.code == ErrorCode::not_found) return error;
    fmt::print(stderr, "holdfast: this reading is not on record: {}\n", error.message);
    return {};
  };
  // Another reader may be putting itself on record at this moment.
  auto reached = ask_or_open(config, "/journal/access", {{"command", command}, {"reason", reason}, {"entries", ids.size()}, {"ids", examples}},
                             std::chrono::seconds(1));
  if (!reached) return unrecorded(reached.error());
  if (!reached->journal) return {};
  journal::AccessRecord access{journal::now_us(), own_name(), command, reason, ids.size(), examples};
  auto written = journal::write_record(reached->journal->writer(), journal::RecordKind::access, journal::encode(access));
  return written ? Status() : unrecorded(written.error());
}

namespace {

Result<std::unique_ptr<journal::Journal>> open(const Config& config, bool is_command, journal::Writer::OnEvent on_event) {
  journal::JournalOptions options;
  options.path = config.journal.path;
  options.key = config.journal.key;
  options.segment_size = config.journal.segment_size;
  options.segment_age_us = std::chrono::duration_cast<std::chrono::microseconds>(config.journal.segment_age).count();
  options.compacts = config.journal.compress && !is_command;
  options.is_command = is_command;
  options.witnesses = head_witnesses(config.journal.publish_heads);
  auto journal = journal::Journal::open(options, std::move(on_event));
  if (!journal) return journal;
  // A daemon whose mailboxes are open has another way.
  (*journal)->on_erase([path = options.path, base = (*journal)->base_key()](const std::vector<journal::RecordId>& entries) -> Status {
    if (::access(failover::MailboxStore::path_in(path).c_str(), F_OK) != 0) return {};
    auto store = failover::MailboxStore::open(path, base, journal::Environment::Mode::write);
    return store ? (*store)->forget(entries) : store.error();
  });
  return journal;
}

}  // namespace

Result<std::unique_ptr<journal::Journal>> open_journal(const Config& config, journal::Writer::OnEvent on_event) {
  return open(config, false, std::move(on_event));
}

Result<Reached> ask_or_open(const Config& config, const std::string& resource, const Json& body, std::chrono::milliseconds patience) {
  auto until = std::chrono::steady_clock::now() + patience;
  for (;;) {
    Error why{ErrorCode::no_daemon, ""};
    if (!config.admin_socket.empty()) {
      auto answer = ask_admin(config.admin_socket, resource, body);
      if (answer) return Reached{std::move(*answer), nullptr};
      why = answer.error();
    }
    if (why.code == ErrorCode::no_daemon) {
      auto journal = open(config, true, [](bool, const std::string&) {});
      if (journal) return Reached{Json(), std::move(*journal)};
      why = journal.error();
    }
    if (why.code != ErrorCode::busy || std::chrono::steady_clock::now() >= until) return why;
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
  }
}

}  // namespace holdfast::proxy
