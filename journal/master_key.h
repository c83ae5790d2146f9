// The master key: where it comes from, a file of one's own or a command that asks a vault or a TPM.
//
// Whoever has it and the journal can read all mail; whoever loses it has lost the content. It is never
// printed.
#pragma once

#include <string>

#include "journal/crypto.h"
#include "journal/result.h"

namespace holdfast::journal {

struct MasterKeySource {
  std::string file;
  std::string command;  ///< for /bin/sh; prints the key. Empty: the file

  bool operator==(const MasterKeySource&) const = default;
  /// For messages.
  std::string name() const { return command.empty() ? file : "journal.key_command"; }
};

/// A key as files and commands give it: 64 hexadecimal digits, 44 characters of base64 (both with or without
/// a line end), or 32 raw bytes.
std::optional<Key> parse_master_key(std::string text);

/// Reads the key, waiting for the command where there is one. Errors: not_found (no such file), permission
/// (not readable, or others may read it), corrupt (not a key), unavailable (the command failed).
Result<Key> read_master_key(const MasterKeySource& source);

/// Makes a new random key and writes it in hexadecimal with mode 0600, synced. Fails when the file exists.
Result<Key> create_key_file(const std::string& path);

}  // namespace holdfast::journal
