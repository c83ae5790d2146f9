#include "proxy/admin_client.h"

#include <fmt/format.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstring>

#include "journal/files.h"
#include "proxy/command.h"
#include "proxy/mime.h"

namespace holdfast::proxy {
namespace {

/// One request and its answer (RFC 9112), of which this needs no more than one's own server says. It is no library's, since nearly every
/// command asks, and loading one takes longer than to ask. Each step ends with errno when it fails.
class Exchange {
 public:
  explicit Exchange(std::chrono::milliseconds patience)
      : socket_(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)), end_(std::chrono::steady_clock::now() + patience) {}

  bool connect(const std::string& path) {
    sockaddr_un address = unix_address(path);
    return may_wait(SO_SNDTIMEO) && ::connect(socket_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0;
  }

  bool send(std::string_view text) {
    while (!text.empty()) {
      if (!may_wait(SO_SNDTIMEO)) return false;
      ssize_t sent = ::send(socket_.get(), text.data(), text.size(), MSG_NOSIGNAL);
      if (sent > 0) text.remove_prefix(static_cast<std::size_t>(sent));
      if (sent < 0 && errno != EINTR) return false;
    }
    return true;
  }

  /// The answer's content, whole.
  bool receive(std::string& content) {
    std::string text;
    std::size_t begin = std::string::npos, size = 0;
    while (begin == std::string::npos || text.size() < begin + size) {
      if (!receive_more(text)) return false;
      if (begin != std::string::npos) continue;
      begin = text.find("\r\n\r\n");
      if (begin == std::string::npos) continue;
      begin += 4;
      size = parse_number(field_of(std::string_view(text).substr(0, begin), "Content-Length")).value_or(0);
    }
    content = text.substr(begin);
    return true;
  }

 private:
  /// Has the next call wait no longer than is left.
  bool may_wait(int option) {
    auto left = std::chrono::duration_cast<std::chrono::microseconds>(end_ - std::chrono::steady_clock::now()).count();
    timeval limit{static_cast<time_t>(left / 1000000), static_cast<suseconds_t>(left % 1000000)};
    if (left > 0) return ::setsockopt(socket_.get(), SOL_SOCKET, option, &limit, sizeof limit) == 0;
    errno = EAGAIN;
    return false;
  }

  bool receive_more(std::string& text) {
    char piece[16 * 1024];
    ssize_t got = -1;
    do {
      if (!may_wait(SO_RCVTIMEO)) return false;
      got = ::recv(socket_.get(), piece, sizeof piece, 0);
    } while (got < 0 && errno == EINTR);
    if (got > 0) text.append(piece, static_cast<std::size_t>(got));
    if (got == 0) errno = ECONNRESET;
    return got > 0;
  }

  FileDescriptor socket_;
  std::chrono::steady_clock::time_point end_;
};

}  // namespace

sockaddr_un unix_address(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::strncpy(address.sun_path, path.c_str(), sizeof address.sun_path - 1);
  return address;
}

Result<Json> ask_admin(const std::string& path, const std::string& resource, const Json& body, std::chrono::milliseconds patience) {
  auto unanswered = [&path] {
    const char* reason = errno == EAGAIN ? "it takes too long" : std::strerror(errno);
    return Error{ErrorCode::unavailable,
                 fmt::format("{}: the daemon has not answered ({}); whether it did what it was asked is not known, its log tells", path, reason)};
  };
  Exchange exchange(patience);
  bool is_connected = exchange.connect(path);
  if (!is_connected && errno == EAGAIN) return unanswered();
  if (!is_connected)
    return Error{ErrorCode::no_daemon, fmt::format("{}: no daemon answers there ({}); is `holdfast serve` running, and may you use its socket?", path,
                                                   std::strerror(errno))};
  std::string sent = to_line(body), got;
  std::string header = fmt::format("POST {} HTTP/1.1\r\nHost: holdfast\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", resource, sent.size());
  if (!exchange.send(header + sent) || !exchange.receive(got)) return unanswered();
  Json answer = Json::parse(got, nullptr, false);
  if (answer.is_discarded()) return Error{ErrorCode::io, path + ": the daemon's answer is no JSON; is it the same version?"};
  if (answer.is_object() && answer.contains("error"))
    return Error{static_cast<ErrorCode>(answer.value("code", 0)), answer.value("error", std::string())};
  return answer;
}

}  // namespace holdfast::proxy
