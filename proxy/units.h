// Durations, sizes and moments as text: "5s", "14d", "50MiB", "2026-01-31T08:00:00Z". Sans I/O.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace holdfast::proxy {

using Duration = std::chrono::milliseconds;

/// A number and one of ms, s, m, h, d, or nothing for anything else.
std::optional<Duration> parse_duration(std::string_view text);
/// A number and one of B, KiB, MiB, GiB, TiB, KB, MB, GB, TB; in bytes.
std::optional<std::uint64_t> parse_size(std::string_view text);
/// A moment as RFC 3339 writes it ("2026-01-31T08:00:00Z"), in microseconds since 1970.
std::optional<std::int64_t> parse_date_time(const std::string& text);
/// Such a moment, in UTC, with microseconds.
std::string format_time(std::int64_t us);
/// The largest unit that divides it: "90s" for a minute and a half.
std::string to_text(Duration duration);
/// For people, rounded down: "23 h", "47 min", "12 s".
std::string roughly(Duration duration);

}  // namespace holdfast::proxy
