#include "proxy/log.h"

#include <limits.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <ctime>
#include <mutex>
#include <utility>

#include "proxy/address.h"
#include "proxy/json.h"
#include "proxy/log_mask.h"

namespace holdfast::proxy {
namespace {

std::atomic<LogFormat> format_now{LogFormat::text};
std::atomic<LogLevel> level_now{LogLevel::info};
std::atomic<bool> is_masked{false};

struct Gathered {
  std::string lines;
  bool is_gathering = false;
  std::uint64_t lost = 0;  ///< lines for which there was no room
};
thread_local Gathered gathered;

/// What the log may say of field; mask is where that stands when it is not all.
const std::string& value_of(const Field& field, std::string& mask) {
  return is_masked.load(std::memory_order_relaxed) && !field.is_number ? mask = masked(field.key, field.value) : field.value;
}

/// What a thread keeps for a reader who is slow; more is lost.
constexpr std::size_t most_unwritten = 64 * 1024;

constexpr std::string_view level_names[] = {"debug", "info", "warning", "error"};
constexpr std::string_view priorities[] = {"<7>", "<6>", "<4>", "<3>"};

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

/// Of standard error. Behind a pipe or a socket is somebody who may be slow, or stopped: to wait for him would hold up all mail.
mode_t kind_of_output() {
  static const mode_t kind = [] {
    struct stat what {};
    return ::fstat(STDERR_FILENO, &what) == 0 ? what.st_mode & S_IFMT : mode_t{0};
  }();
  return kind;
}

/// Whether standard error leads to systemd's journal.
bool is_for_systemd() {
  static const bool is_it = [] {
    struct stat what {};
    const char* named = std::getenv("JOURNAL_STREAM");
    return named && ::fstat(STDERR_FILENO, &what) == 0 && named == fmt::format("{}:{}", what.st_dev, what.st_ino);
  }();
  return is_it;
}

/// As write(2), but EAGAIN when there is no room. Of a pipe's, one page at a time is known to be free.
ssize_t write_now(std::string_view piece) {
  if (kind_of_output() == S_IFSOCK) return ::send(STDERR_FILENO, piece.data(), piece.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
  if (kind_of_output() != S_IFIFO) return ::write(STDERR_FILENO, piece.data(), piece.size());
  static std::mutex one_at_a_time;
  std::lock_guard lock(one_at_a_time);
  pollfd room{STDERR_FILENO, POLLOUT, 0};
  if (::poll(&room, 1, 0) == 1) return ::write(STDERR_FILENO, piece.data(), piece.size());
  errno = EAGAIN;
  return -1;
}

/// Writes what there is room for, whole lines if possible. Returns how much; all when nobody listens: mail goes on.
std::size_t write_some(std::string_view text) {
  bool is_piecewise = kind_of_output() == S_IFIFO || kind_of_output() == S_IFSOCK;
  std::size_t done = 0;
  while (done < text.size()) {
    std::string_view piece = text.substr(done);
    if (is_piecewise && piece.size() > PIPE_BUF) {
      std::size_t end = piece.rfind('\n', PIPE_BUF - 1);
      piece = piece.substr(0, end == std::string_view::npos ? PIPE_BUF : end + 1);
    }
    ssize_t written = write_now(piece);
    if (written < 0 && errno == EINTR) continue;
    if (written < 0 && errno == EAGAIN) return done;
    if (written <= 0) return text.size();
    done += static_cast<std::size_t>(written);
  }
  return done;
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

void configure_log(const LogConfig& config) {
  format_now = config.format;
  level_now = config.level;
  is_masked = config.are_addresses_masked;
}

bool is_logged(LogLevel level) { return level >= level_now.load(std::memory_order_relaxed); }

void log(LogLevel level, std::string_view event, std::initializer_list<Field> fields) {
  if (!is_logged(level)) return;
  std::string& out = gathered.lines;
  if (out.size() >= most_unwritten) flush_log();
  if (out.size() >= most_unwritten) {
    ++gathered.lost;
    return;
  }
  std::string mask;
  if (is_for_systemd()) out += priorities[static_cast<int>(level)];
  if (format_now.load(std::memory_order_relaxed) == LogFormat::json) {
    Json line = {{"time", timestamp()}, {"level", level_names[static_cast<int>(level)]}, {"event", event}};
    for (const Field& field : fields) {
      if (field.is_number)
        line[std::string(field.key)] = Json::parse(field.value, nullptr, false);
      else
        line[std::string(field.key)] = value_of(field, mask);
    }
    out += to_line(line);
  } else {
    if (!is_for_systemd()) {
      out += timestamp();
      out += ' ';
    }
    out += level_names[static_cast<int>(level)];
    out += ' ';
    out += event;
    for (const Field& field : fields) {
      out += ' ';
      out += field.key;
      out += '=';
      const std::string& value = value_of(field, mask);
      if (needs_quotes(value)) {
        out += '"';
        out += escape(value);
        out += '"';
      } else {
        out += value;
      }
    }
  }
  out += '\n';
  if (!gathered.is_gathering || out.size() > 32 * 1024) flush_log();
}

void gather_log(bool is_wanted) {
  gathered.is_gathering = is_wanted;
  if (!is_wanted) flush_log();
}

void flush_log() {
  if (gathered.lines.empty()) return;
  gathered.lines.erase(0, write_some(gathered.lines));
  if (!gathered.lines.empty() || gathered.lost == 0) return;
  log(LogLevel::warning, "log", {{"lost", std::exchange(gathered.lost, 0)}, {"problem", "nobody read these lines for too long"}});
}

}  // namespace holdfast::proxy
