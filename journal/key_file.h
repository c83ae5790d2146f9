// The master key's file: 64 hexadecimal digits and a newline, readable by its owner alone.
//
// Whoever has this file and the journal can read all mail; whoever loses it has lost the content. It is made on the
// first start and never printed.
#pragma once

#include <string>

#include "journal/crypto.h"
#include "journal/result.h"

namespace holdfast::journal {

/// Reads the key. Errors: not_found, permission (not readable, or others may read it), corrupt (not a key).
Result<Key> read_key_file(const std::string& path);

/// Makes a new random key and writes it with mode 0600, synced. Fails when the file exists.
Result<Key> create_key_file(const std::string& path);

}  // namespace holdfast::journal
