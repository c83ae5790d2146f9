// The log: one line an event, key=value or JSON, on standard error.
//
// What systemd's journal reads has the priority in front, in sd-daemon(3)'s way, and no time in text, since
// it knows that itself.
//
// Each thread gathers its lines; an event loop writes them once a turn, other threads at once. Control
// characters in values are escaped, so that nothing a client sends can forge a line or move a terminal's
// cursor; with `log.addresses: masked` they say less of people (log_mask.h). Who reads the log through a pipe
// or a socket and is slow loses lines, which are counted; no thread waits for him.
#pragma once

#include <fmt/format.h>

#include <initializer_list>
#include <string>
#include <string_view>

#include "proxy/config.h"

namespace holdfast::proxy {

/// One fact of an event. Numbers and text alike; text is quoted where needed.
struct Field {
  std::string_view key;
  std::string value;
  bool is_number = false;

  Field(std::string_view k, std::string v) : key(k), value(std::move(v)) {}
  Field(std::string_view k, std::string_view v) : key(k), value(v) {}
  Field(std::string_view k, const char* v) : key(k), value(v) {}
  template <class Number>
  requires std::is_arithmetic_v<Number> Field(std::string_view k, Number v) : key(k), value(fmt::format("{}", v)), is_number(true) {}
};

/// Sets what is logged and how, for all threads. Thread-safe.
void configure_log(const LogConfig& config);

bool is_logged(LogLevel level);

/// Adds a line. event is a short name such as "message" or "connect".
void log(LogLevel level, std::string_view event, std::initializer_list<Field> fields);

/// Makes this thread gather lines until flush_log(), or no longer. For threads that come by often.
void gather_log(bool is_wanted);
void flush_log();

/// text with control characters as escapes; safe for terminals.
std::string printable(std::string_view text);
/// text with control characters, quotes and backslashes as escapes; safe for terminals and logs.
std::string escape(std::string_view text);

}  // namespace holdfast::proxy
