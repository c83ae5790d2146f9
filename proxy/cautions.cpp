#include "proxy/cautions.h"

#include "journal/files.h"
#include "proxy/password_file.h"

namespace holdfast::proxy {
namespace {

constexpr std::uint16_t submissions_port = 465;  // RFC 8314 7.3

const RouteConfig* egress_of(const Config& config) {
  bool has_one = !config.routes.empty() && config.routes.back().is_egress;
  return has_one ? &config.routes.back() : nullptr;
}

/// Many primaries refuse a name that is not a full one, for good, and with it each held message.
bool is_full_name(const std::string& hostname) { return hostname.find('.') != std::string::npos || hostname.starts_with('['); }

}  // namespace

std::vector<Caution> cautions_about(const Config& config) {
  std::vector<Caution> found;
  if (!is_full_name(config.hostname))
    found.push_back(
        {"hostname", config.hostname, "it is no full name, and a primary that wants one refuses all held mail for that; write mx.example.org"});
  if (std::string doubt = journal::doubt_about_disk(config.journal.path); !doubt.empty())
    found.push_back({"journal.path", config.journal.path, doubt + "; put it on a local disk"});
  auto try_password = [&](const char* key, const std::string& path) {
    if (path.empty()) return;
    Result<std::string> password = read_password_file(path);
    if (!password) found.push_back({key, path, password.error().message});
  };
  if (const RouteConfig* egress = egress_of(config)) {
    try_password("egress.auth.password_file", egress->auth_password_file);
    for (const HostPort& upstream : egress->upstreams)
      if (upstream.port == submissions_port && !egress->is_tls_from_start)
        found.push_back({"egress.upstreams", to_string(upstream), "TLS begins at the first byte there, as a rule; write implicit_tls: true"});
  }
  if (config.directory.ldap) try_password("directory.ldap.password_file", config.directory.ldap->password_file);
  return found;
}

}  // namespace holdfast::proxy
