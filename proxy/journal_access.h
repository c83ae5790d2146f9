// How the daemon and the commands come to the journal: opened as configured, with reading on record, and out
// of the mail's way.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "journal/journal.h"
#include "journal/reader.h"
#include "proxy/config.h"

namespace holdfast::proxy {

Result<JournalConfig> journal_config(const std::string& config_path);
Result<std::unique_ptr<journal::Reader>> open_reader(const std::string& config_path);
/// Puts on record that content is about to be read: by the daemon, or, without one, by opening the journal.
/// Where that cannot be (a full disk, media that cannot be written, a daemon that cannot be asked) it is said
/// on standard error. Error: the journal is not in order.
Status record_access(const Config& config, const std::string& command, const std::string& reason,
                     const std::vector<journal::RecordId>& ids);
/// "user NAME": who runs this.
std::string own_name();

/// From now on this process takes what processor and disk time others leave: mail goes first.
void stand_back();

/// As the daemon opens it, for when none runs. Error: busy when one does.
/// compacts: sealed segments are compressed as long as it is open.
Result<std::unique_ptr<journal::Journal>> open_journal(
    const Config& config, journal::Writer::OnEvent on_event = [](bool, const std::string&) {}, bool compacts = false);

}  // namespace holdfast::proxy
