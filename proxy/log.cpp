#include "proxy/log.h"

#include <unistd.h>

#include <atomic>
#include <chrono>
#include <ctime>
#include <nlohmann/json.hpp>

#include "proxy/address.h"

namespace holdfast::proxy {
namespace {

std::atomic<LogFormat> format_now{LogFormat::text};
std::atomic<LogLevel> level_now{LogLevel::info};

struct Gathered {
  std::string lines;
  bool is_gathering = false;
};
thread_local Gathered gathered;

constexpr std::string_view level_names[] = {"debug", "info", "warning", "error"};

std::string timestamp() {
  auto now = std::chrono::system_clock::now();
  auto us = std::chrono::duration_cast<std::chrono::microseconds>(now.time_since_epoch()).count();
  // The date changes once a second; formatting it for every line would cost more than the rest of the line.
  thread_local std::time_t last_second = -1;
  thread_local char date[24];
  std::time_t second = us / 1000000;
  if (second != last_second) {
    std::tm parts;
    gmtime_r(&second, &parts);
    std::strftime(date, sizeof date, "%Y-%m-%dT%H:%M:%S", &parts);
    last_second = second;
  }
  return fmt::format("{}.{:06}Z", date, us % 1000000);
}

bool needs_quotes(std::string_view text) {
  for (char c : text)
    if (static_cast<unsigned char>(c) <= ' ' || c == '"' || c == '=' || c == '\\' || c == 127) return true;
  return text.empty();
}

void write_all(std::string_view text) {
  while (!text.empty()) {
    ssize_t written = ::write(STDERR_FILENO, text.data(), text.size());
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) return;  // nobody listens; mail goes on
    text.remove_prefix(static_cast<std::size_t>(written));
  }
}

}  // namespace

std::string printable(std::string_view text) {
  bool is_valid = is_utf8(text);
  std::string safe;
  for (std::size_t i = 0; i < text.size(); ++i) {
    auto byte = static_cast<unsigned char>(text[i]);
    // U+0080 to U+009F are control characters too: some terminals take U+009B for the begin of a sequence.
    bool is_wide_control = is_valid && byte == 0xc2 && static_cast<unsigned char>(text[i + 1]) < 0xa0;
    if (is_wide_control)
      safe += fmt::format("\\x{:02x}\\x{:02x}", byte, static_cast<unsigned char>(text[++i]));
    else if (byte < ' ' || byte == 127 || (byte >= 128 && !is_valid))
      safe += fmt::format("\\x{:02x}", byte);
    else
      safe += text[i];
  }
  return safe;
}

std::string escape(std::string_view text) {
  std::string quoted;
  for (char c : text) {
    if (c == '"' || c == '\\') quoted += '\\';
    quoted += c;
  }
  return printable(quoted);
}

void configure_log(LogFormat format, LogLevel level) {
  format_now = format;
  level_now = level;
}

bool is_logged(LogLevel level) { return level >= level_now.load(std::memory_order_relaxed); }

void log(LogLevel level, std::string_view event, std::initializer_list<Field> fields) {
  if (!is_logged(level)) return;
  std::string& out = gathered.lines;
  if (format_now.load(std::memory_order_relaxed) == LogFormat::json) {
    nlohmann::ordered_json line = {{"time", timestamp()}, {"level", level_names[static_cast<int>(level)]}, {"event", event}};
    for (const Field& field : fields) {
      if (field.is_number)
        line[std::string(field.key)] = nlohmann::json::parse(field.value, nullptr, false);
      else
        line[std::string(field.key)] = field.value;
    }
    out += line.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  } else {
    out += timestamp();
    out += ' ';
    out += level_names[static_cast<int>(level)];
    out += ' ';
    out += event;
    for (const Field& field : fields) {
      out += ' ';
      out += field.key;
      out += '=';
      if (needs_quotes(field.value)) {
        out += '"';
        out += escape(field.value);
        out += '"';
      } else {
        out += field.value;
      }
    }
  }
  out += '\n';
  if (!gathered.is_gathering || out.size() > 32 * 1024) flush_log();
}

void gather_log() { gathered.is_gathering = true; }

void flush_log() {
  if (gathered.lines.empty()) return;
  write_all(gathered.lines);
  gathered.lines.clear();
}

}  // namespace holdfast::proxy
