#include "proxy/password_file.h"

#include <fmt/format.h>

#include <fstream>

namespace holdfast::proxy {

Result<std::string> read_password_file(const std::string& path) {
  std::ifstream file(path);
  if (!file) return Error{ErrorCode::not_found, fmt::format("{}: the password file cannot be read", path)};
  std::string password;
  std::getline(file, password);
  if (password.ends_with('\r')) password.pop_back();
  if (password.empty()) return Error{ErrorCode::invalid, fmt::format("{}: there is no password in its first line", path)};
  return password;
}

}  // namespace holdfast::proxy
