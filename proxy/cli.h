// The command line of the one binary.
#pragma once

#include <CLI/CLI.hpp>
#include <string>

#include "journal/result.h"
#include "proxy/json.h"

namespace holdfast::proxy {

/// Runs a command; returns the process's exit code (sysexits.h).
int run_command_line(int argc, char** argv);

// Each adds a group of commands. config is where -c's value will stand; exit_code gets the command's.
void add_status_command(CLI::App& app, const std::string& config, int& exit_code);
void add_failover_commands(CLI::App& app, const std::string& config, int& exit_code);
void add_mailbox_commands(CLI::App& app, const std::string& config, int& exit_code);
void add_journal_commands(CLI::App& app, const std::string& config, int& exit_code);

void add_erase_commands(CLI::App& group, const std::string& config, int& exit_code);
void add_export_command(CLI::App& group, const std::string& config, int& exit_code);
void add_legal_hold_commands(CLI::App& group, const std::string& config, int& exit_code);
void add_proof_commands(CLI::App& group, const std::string& config, int& exit_code);
void add_rekey_command(CLI::App& group, const std::string& config, int& exit_code);
void add_replay_command(CLI::App& group, const std::string& config, int& exit_code);

/// `journal show` and `queue show`: all about one entry.
///
/// @param held  what the daemon says of it when it is held (Control::queue_show()); else nothing
int show_entry(const std::string& config, std::uint64_t id, bool as_json, const Json& held = Json());
/// What the daemon says of a recipient of held mail: "deferred, again at 2026-11-28T03:00:00.000000Z  451 4.3.2 busy"
std::string text_of_held(const Json& recipient);

/// Prints the error for a person on standard error and gives the exit code that goes with it.
int fail(const Error& error);

}  // namespace holdfast::proxy
