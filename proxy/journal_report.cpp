#include "proxy/journal_report.h"

#include <fmt/chrono.h>
#include <fmt/format.h>

#include <ctime>

namespace holdfast::proxy {
namespace {

/// What came from outside may not begin a line of its own.
std::string one_line(const std::string& text) {
  std::string line;
  for (char c : text) line += c == '\r' || c == '\n' || c == '\0' ? ' ' : c;
  return line;
}

}  // namespace

std::string body_of_report(const journal::Entry& entry) { return is_binary(entry.message) ? "BODY=BINARYMIME" : "BODY=8BITMIME"; }

Payload journal_report(const journal::Entry& entry, const Payload& content, const std::string& hostname) {
  const journal::MessageRecord& message = entry.message;
  // Random, and so nowhere in the content.
  std::string boundary = "holdfast-" + journal::to_hex(journal::view(journal::random_key()));
  std::string facts = fmt::format("Sender: {}\r\nSubject: {}\r\nMessage-Id: <{}>\r\n", one_line(message.mail_from), one_line(message.subject),
                                  one_line(message.message_id));
  for (const journal::Recipient& one : message.recipients) facts += fmt::format("Recipient: {}\r\n", one_line(one.address));
  const char* encoding = is_binary(message) ? "binary" : "8bit";  // not all who send 8-bit text say so
  std::string head = fmt::format(
      "From: <journal@{0}>\r\nDate: {1:%a, %d %b %Y %H:%M:%S} +0000\r\nSubject: Journal "
      "Report\r\nMessage-ID: <journal-report-{2}.{3}@{0}>\r\n"
      "X-MS-Journal-Report:\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; "
      "boundary=\"{4}\"\r\nContent-Transfer-Encoding: {5}\r\n\r\n"
      "--{4}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n{6}\r\n"
      "--{4}\r\nContent-Type: message/rfc822\r\nContent-Transfer-Encoding: {5}\r\n\r\n",
      hostname, fmt::gmtime(static_cast<std::time_t>(message.time_us / 1000000)), entry.id, message.time_us, boundary, encoding, facts);
  std::string tail = fmt::format("\r\n--{}--\r\n", boundary);
  Payload report;
  report.size = head.size() + content.size + tail.size();
  report.frames = content.frames + 2;
  report.frame = [head, tail, content](std::uint32_t index) -> Result<std::optional<std::string>> {
    if (index == 0) return std::optional(head);
    if (index <= content.frames) return content.frame(index - 1);
    return std::optional(tail);
  };
  return report;
}

}  // namespace holdfast::proxy
