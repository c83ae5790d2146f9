#include "proxy/replay.h"

#include <fmt/format.h>

namespace holdfast::proxy {

Result<std::unique_ptr<ReplayTarget>> open_target(const ReplayOptions& options, const Config& config, ReplayProgress& progress) {
  std::size_t colon = options.to.find(':');
  std::string kind = options.to.substr(0, colon), rest = colon == std::string::npos ? "" : options.to.substr(colon + 1);
  if ((kind == "maildir" || kind == "mbox" || kind == "eml") && !rest.empty())
    return open_file_target(kind, rest, config.journal.path, progress, options.concurrency);
  if ((kind == "smtp" || kind == "smtps" || kind == "lmtp") && rest.starts_with("//")) {
    std::string place = rest.substr(2);
    if (place.ends_with('/')) place.pop_back();
    std::optional<HostPort> host = parse_host_port(place);
    const char* port = kind == "smtp" ? "25" : kind == "smtps" ? "465" : "24";
    if (!host || host->port == 0) host = parse_host_port(fmt::format("{}:{}", place, port));
    if (host) return open_smtp_target(kind, *host, options, config);
  }
  return Error{ErrorCode::invalid, fmt::format("\"{}\" is no target; write smtp://HOST:PORT, smtps://HOST:PORT, "
                                               "lmtp://HOST:PORT, maildir:DIR, mbox:FILE or eml:DIR",
                                               options.to)};
}

}  // namespace holdfast::proxy
