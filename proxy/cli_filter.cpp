#include "proxy/cli_filter.h"

#include <fmt/format.h>

#include <chrono>
#include <set>

#include "proxy/units.h"

namespace holdfast::proxy {
namespace {

/// A time as RFC 3339 writes it, a date, or a duration back from now ("2h").
std::optional<std::int64_t> parse_time(const std::string& text) {
  if (std::optional<Duration> ago = parse_duration(text))
    return journal::now_us() - std::chrono::duration_cast<std::chrono::microseconds>(*ago).count();
  return parse_date_time(text.size() == 10 ? text + "T00:00:00Z" : text);
}

}  // namespace

void FilterOptions::add_times_to(CLI::App& command) {
  command.add_option("--since", since, "from this time on: 2026-01-31, 2026-01-31T08:00:00Z, or 2h for two hours ago");
  command.add_option("--until", until, "before this time");
}

void FilterOptions::add_to(CLI::App& command) {
  add_times_to(command);
  command.add_option("--sender", sender, "the envelope's sender");
  command.add_option("--recipient", recipient, "one of the envelope's recipients");
  command.add_option("--message-id", message_id, "the Message-ID header");
  command.add_option("--outcome", outcome, "forwarded, rejected, deferred, abandoned, ...: of any recipient");
  command.add_option("--route", route, "the route's name");
  command.add_option("--direction", direction, "inbound or outbound");
}

Result<journal::Filter> FilterOptions::filter() const {
  journal::Filter result;
  auto set = [](const std::string& text, std::optional<std::string>& slot) {
    if (!text.empty()) slot = text;
  };
  set(sender, result.sender);
  set(recipient, result.recipient);
  set(message_id, result.message_id);
  set(route, result.route);
  for (auto [text, slot] : {std::pair(&since, &result.since_us), std::pair(&until, &result.until_us)}) {
    if (text->empty()) continue;
    *slot = parse_time(*text);
    if (!*slot)
      return Error{ErrorCode::invalid, fmt::format("\"{}\" is no time; write 2026-01-31, 2026-01-31T08:00:00Z, or 2h for two hours ago", *text)};
  }
  if (!outcome.empty()) {
    result.outcome = journal::parse_outcome(outcome);
    if (!result.outcome) return Error{ErrorCode::invalid, fmt::format("\"{}\" is no outcome; see holdfast journal list --help", outcome)};
  }
  if (direction == "inbound") result.direction = journal::Direction::inbound;
  if (direction == "outbound") result.direction = journal::Direction::outbound;
  if (!direction.empty() && !result.direction)
    return Error{ErrorCode::invalid, fmt::format("\"{}\" is no direction; write inbound or outbound", direction)};
  return result;
}

Result<std::vector<journal::Entry>> FilterOptions::named(journal::Reader& reader, const journal::Filter& filter) const {
  std::vector<journal::Entry> found;
  std::set<journal::RecordId> seen;
  for (journal::RecordId id : ids) {
    auto entry = reader.entry(id);
    if (!entry) return entry.error();
    if (passes(*entry, filter) && seen.insert(id).second) found.push_back(std::move(*entry));
  }
  return found;
}

}  // namespace holdfast::proxy
