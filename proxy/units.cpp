#include "proxy/units.h"

#include <fmt/format.h>

#include <array>
#include <ctime>
#include <limits>

#include "proxy/command.h"
#include "proxy/late_glib.h"

namespace holdfast::proxy {
namespace {

struct Unit {
  std::string_view name;
  std::uint64_t factor;
};

constexpr std::array durations = {Unit{"d", 86400000}, Unit{"h", 3600000}, Unit{"m", 60000}, Unit{"s", 1000}, Unit{"ms", 1}};
constexpr std::array sizes = {Unit{"B", 1},     Unit{"KiB", 1ULL << 10}, Unit{"MiB", 1ULL << 20}, Unit{"GiB", 1ULL << 30},  Unit{"TiB", 1ULL << 40},
                              Unit{"KB", 1000}, Unit{"MB", 1000000},     Unit{"GB", 1000000000},  Unit{"TB", 1000000000000}};

template <std::size_t N>
std::optional<std::uint64_t> parse(std::string_view text, const std::array<Unit, N>& units) {
  std::size_t digits = 0;
  while (digits < text.size() && text[digits] >= '0' && text[digits] <= '9') ++digits;
  std::optional<std::uint64_t> number = parse_number(text.substr(0, digits));
  std::string_view name = text.substr(digits);
  if (name.starts_with(' ')) name.remove_prefix(1);
  for (const Unit& unit : units)
    if (number && unit.name == name && *number <= std::numeric_limits<std::int64_t>::max() / unit.factor) return *number * unit.factor;
  return std::nullopt;
}

}  // namespace

std::optional<Duration> parse_duration(std::string_view text) {
  std::optional<std::uint64_t> ms = parse(text, durations);
  return ms ? std::optional(Duration(static_cast<std::int64_t>(*ms))) : std::nullopt;
}

std::optional<std::uint64_t> parse_size(std::string_view text) { return parse(text, sizes); }

std::optional<std::int64_t> parse_date_time(const std::string& text) {
  GTimeZone* utc = g_time_zone_new_utc();
  GDateTime* time = g_date_time_new_from_iso8601(text.c_str(), utc);
  g_time_zone_unref(utc);
  if (!time) return std::nullopt;
  std::int64_t us = g_date_time_to_unix(time) * 1000000 + g_date_time_get_microsecond(time);
  g_date_time_unref(time);
  return us;
}

std::string format_time(std::int64_t us) {
  std::time_t second = us / 1000000;
  std::tm parts;
  gmtime_r(&second, &parts);
  char text[32];
  std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%S", &parts);
  return fmt::format("{}.{:06}Z", text, us % 1000000);
}

std::string to_text(Duration duration) {
  auto ms = static_cast<std::uint64_t>(duration.count());
  for (const Unit& unit : durations)
    if (ms % unit.factor == 0 && ms > 0) return fmt::format("{}{}", ms / unit.factor, unit.name);
  return "0s";
}

std::string roughly(Duration duration) {
  auto seconds = std::chrono::duration_cast<std::chrono::seconds>(duration).count();
  constexpr auto minute = 60, hour = 60 * minute;
  if (seconds >= 2 * hour) return fmt::format("{} h", seconds / hour);
  return seconds >= 2 * minute ? fmt::format("{} min", seconds / minute) : fmt::format("{} s", seconds);
}

}  // namespace holdfast::proxy
