#include "proxy/journal_access.h"

#include <fmt/format.h>
#include <pwd.h>
#include <sched.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <thread>

#include "failover/mailbox_store.h"
#include "journal/write_record.h"
#include "proxy/admin.h"
#include "proxy/publish_heads.h"

namespace holdfast::proxy {

Result<JournalConfig> journal_config(const std::string& config_path) {
  Result<Config> config = load_config(config_path);
  if (!config) return Error{ErrorCode::invalid, config.error().message};
  return config->journal;
}

Result<std::unique_ptr<journal::Reader>> open_reader(const std::string& config_path) {
  Result<JournalConfig> config = journal_config(config_path);
  if (!config) return config.error();
  return journal::Reader::open(config->path, config->key);
}

void stand_back() {
  constexpr int which_process = 1, idle_class = 3 << 13;  // as linux/ioprio.h has them
  sched_param none{};
  if (::sched_setscheduler(0, SCHED_IDLE, &none) != 0) ::setpriority(PRIO_PROCESS, 0, 19);
  ::syscall(SYS_ioprio_set, which_process, 0, idle_class);
}

std::string own_name() {
  const passwd* user = ::getpwuid(::geteuid());
  return user ? fmt::format("user {}", user->pw_name) : fmt::format("user {}", ::geteuid());
}

Status record_access(const Config& config, const std::string& command, const std::string& reason,
                     const std::vector<journal::RecordId>& ids) {
  if (!config.journal.access_log || ids.empty()) return {};
  std::vector<journal::RecordId> examples(
      ids.begin(), ids.begin() + static_cast<std::ptrdiff_t>(std::min<std::size_t>(ids.size(), 100)));
  if (!config.admin_socket.empty()) {
    auto told =
        ask_admin(config.admin_socket, "/journal/access",
                  {{"command", command}, {"reason", reason}, {"entries", ids.size()}, {"ids", examples}});
    if (told) return {};
  }
  auto unrecorded = [](const Error& error) -> Status {
    if (error.code == ErrorCode::corrupt || error.code == ErrorCode::wrong_key ||
        error.code == ErrorCode::not_found)
      return error;
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
  auto written =
      journal::write_record((*journal)->writer(), journal::RecordKind::access, journal::encode(access));
  return written ? Status() : unrecorded(written.error());
}

Result<std::unique_ptr<journal::Journal>> open_journal(const Config& config,
                                                       journal::Writer::OnEvent on_event, bool compacts) {
  journal::JournalOptions options;
  options.path = config.journal.path;
  options.key = config.journal.key;
  options.segment_size = config.journal.segment_size;
  options.segment_age_us =
      std::chrono::duration_cast<std::chrono::microseconds>(config.journal.segment_age).count();
  options.compacts = compacts;
  options.publish_head = head_publisher(config.journal.publish_heads);
  auto journal = journal::Journal::open(options, std::move(on_event));
  if (!journal) return journal;
  // The daemon has another way: its mailboxes are open.
  (*journal)->on_erase([path = options.path, base = (*journal)->base_key()](const std::vector<journal::RecordId>& entries) -> Status {
    if (::access(failover::MailboxStore::path_in(path).c_str(), F_OK) != 0) return {};
    auto store = failover::MailboxStore::open(path, base, journal::Environment::Mode::write);
    return store ? (*store)->forget(entries) : store.error();
  });
  return journal;
}

}  // namespace holdfast::proxy
