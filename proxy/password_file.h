// A secret in a file of its own, as smart hosts, LDAP servers and new accounts are given it.
#pragma once

#include <string>

#include "journal/result.h"

namespace holdfast::proxy {

/// The first line of the file at path, without its end (LF or CR LF). An error that names the file when it cannot be read, and when
/// that line is empty.
Result<std::string> read_password_file(const std::string& path);

}  // namespace holdfast::proxy
