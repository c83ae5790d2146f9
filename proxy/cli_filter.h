// The filters that all commands on the journal share.
#pragma once

#include <CLI/CLI.hpp>
#include <string>
#include <vector>

#include "journal/reader.h"

namespace holdfast::proxy {

struct FilterOptions {
  std::string since, until, sender, recipient, message_id, outcome, route, direction;
  std::vector<std::uint64_t> ids;  ///< only for commands that offer --id

  void add_to(CLI::App& command);
  void add_times_to(CLI::App& command);
  void add_ids_to(CLI::App& command) { command.add_option("--id", ids, "the entry's number; may be given several times"); }
  /// What to look for; ids apart. Errors say what is no time, outcome or direction.
  Result<journal::Filter> filter() const;
  /// Of the entries that --id names those that pass the filter, each once, in the order in which they are named. Error: not_found.
  Result<std::vector<journal::Entry>> named(journal::Reader& reader, const journal::Filter& filter) const;
};

}  // namespace holdfast::proxy
