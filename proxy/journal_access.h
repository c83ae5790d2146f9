// How the daemon and the commands come to the journal: opened as configured, with reading on record, and out
// of the mail's way.
#pragma once

#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include "journal/journal.h"
#include "journal/reader.h"
#include "proxy/config.h"
#include "proxy/json.h"

namespace holdfast::proxy {

Result<JournalConfig> journal_config(const std::string& config_path);
/// For commands: the journal with all that clients have been told, whether a daemon runs or not.
Result<std::unique_ptr<journal::Reader>> open_reader(const std::string& config_path);
Result<std::unique_ptr<journal::Reader>> open_reader(const Config& config);
/// Says on standard error that so many damaged records or segments were left out, if any. Returns the exit code: EX_OK or EX_DATAERR.
int warn_of_damage(std::uint64_t damaged);
/// Puts on record that content is about to be read: by the daemon, or, without one, by opening the journal.
/// Where that cannot be (a full disk, media that cannot be written, a daemon that cannot be asked) it is said
/// on standard error. Error: the journal is not in order.
Status record_access(const Config& config, const std::string& command, const std::string& reason, const std::vector<journal::RecordId>& ids);
/// "user NAME": who runs this.
std::string own_name();

/// From now on this process takes what processor and disk time others leave, and a little more: mail goes first, but on a machine
/// that is always busy the work ends too. (The idle classes for all of it get next to nothing there; idle_work.h has the long part of verifying in one.)
void stand_back();

/// For the daemon: waits while a command has it open. Error: busy when another daemon has.
Result<std::unique_ptr<journal::Journal>> open_journal(const Config& config, journal::Writer::OnEvent on_event);

/// A daemon's answer; or, without a daemon, the journal.
struct Reached {
  Json answer;
  std::unique_ptr<journal::Journal> journal;
};
/// For commands: asks the daemon; without one, opens the journal as it would. While a daemon starts or ends, or is at other work, and
/// while another command has the journal open, tries again for so long. Errors: as the daemon's answer, or busy.
Result<Reached> ask_or_open(const Config& config, const std::string& resource, const Json& body = Json::object(),
                            std::chrono::milliseconds patience = std::chrono::seconds(10));

}  // namespace holdfast::proxy
