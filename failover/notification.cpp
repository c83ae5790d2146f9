#include "failover/notification.h"

#include <fmt/chrono.h>
#include <fmt/format.h>

#include <algorithm>
#include <ctime>

#include "journal/catalog.h"

namespace holdfast::failover {
namespace {

/// RFC 5322 3.3, UTC.
std::string format_date(std::int64_t us) {
  std::time_t second = us / 1000000;
  std::tm parts;
  gmtime_r(&second, &parts);
  static constexpr const char* days[] = {"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"};
  static constexpr const char* months[] = {"Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
  return fmt::format("{}, {} {} {} {:02}:{:02}:{:02} +0000", days[parts.tm_wday], parts.tm_mday, months[parts.tm_mon], parts.tm_year + 1900,
                     parts.tm_hour, parts.tm_min, parts.tm_sec);
}

/// "192.0.2.1:25" or "[2001:db8::1]:25" as an address literal.
std::string literal(const std::string& endpoint) {
  std::size_t colon = endpoint.rfind(':');
  std::string host = endpoint.substr(0, colon);
  if (host.starts_with('[') && host.ends_with(']')) return "[IPv6:" + host.substr(1, host.size() - 2) + "]";
  return "[" + host + "]";
}

/// What may stand in a header: no control characters, whoever said it.
std::string clean(std::string_view text) {
  std::string out(text.substr(0, 900));
  for (char& c : out)
    if (static_cast<unsigned char>(c) < ' ' || c == 127) c = ' ';
  return out;
}

bool is_ascii(std::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) { return static_cast<unsigned char>(c) < 128; });
}

/// Words of a primary, which writes what it likes. Only an international report may have more than ASCII (RFC 6533).
std::string shown(std::string_view words, bool is_international) {
  std::string out = clean(words);
  if (!is_international)
    std::replace_if(
        out.begin(), out.end(), [](char c) { return static_cast<unsigned char>(c) >= 128; }, '?');
  return out;
}

std::string parameter(std::string_view params, std::string_view key) {
  std::string wanted = journal::normalise(key) + "=";
  while (!params.empty()) {
    std::size_t end = std::min(params.find(' '), params.size());
    std::string_view token = params.substr(0, end);
    if (journal::normalise(token).starts_with(wanted)) return std::string(token.substr(wanted.size()));
    params.remove_prefix(std::min(end + 1, params.size()));
  }
  return {};
}

/// RFC 3461 4: +XX stands for a byte.
std::string decode_xtext(const std::string& text) {
  std::string out;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '+' && i + 2 < text.size()) {
      out += static_cast<char>(std::strtol(text.substr(i + 1, 2).c_str(), nullptr, 16));
      i += 2;
    } else {
      out += text[i];
    }
  }
  return out;
}

std::string address_type(const std::string& address) { return is_ascii(address) ? "rfc822" : "utf-8"; }

const char* word(Action action) {
  switch (action) {
    case Action::failed: return "failed";
    case Action::delayed: return "delayed";
    case Action::relayed: return "relayed";
  }
  return "failed";
}

std::string subject(Action action) {
  switch (action) {
    case Action::failed: return "Your message could not be delivered";
    case Action::delayed: return "Your message is delayed";
    case Action::relayed: return "Your message was passed on";
  }
  return {};
}

std::string explanation(const Notification& n) {
  switch (n.action) {
    case Action::failed: return "Your message could not be delivered to the recipients below. No further attempt will be made.";
    case Action::delayed:
      return fmt::format(
          "Your message has not been delivered to the recipients below yet. You need not do anything: it is kept and\r\n"
          "tried again until {}.",
          format_date(n.will_retry_until_us));
    case Action::relayed: return "Your message was passed on to a mail server that does not tell about delivery itself.";
  }
  return {};
}

}  // namespace

std::string received_line(const journal::Entry& entry, const std::string& hostname, const std::string& for_recipient) {
  const journal::MessageRecord& message = entry.message;
  std::string helo = message.helo.empty() ? "unknown" : clean(message.helo);
  std::string line = fmt::format("Received: from {} ({})\r\n\tby {} with {} id {}", helo, literal(message.client), hostname,
                                 message.protocol.empty() ? "ESMTP" : message.protocol, entry.id);
  if (!for_recipient.empty()) line += fmt::format("\r\n\tfor <{}>", clean(for_recipient));
  return line + ";\r\n\t" + format_date(message.time_us) + "\r\n";
}

Notify notify_of(std::string_view rcpt_params) {
  std::string value = journal::normalise(parameter(rcpt_params, "NOTIFY"));
  if (value.empty()) return {};
  Notify notify{false, false, false};
  notify.success = value.find("success") != std::string::npos;
  notify.failure = value.find("failure") != std::string::npos;
  notify.delay = value.find("delay") != std::string::npos;
  return notify;
}

bool is_smtp_reply(std::string_view words) {
  return words.size() >= 4 && words[3] == ' ' && std::all_of(words.begin(), words.begin() + 3, [](char c) { return c >= '0' && c <= '9'; });
}

std::string status_in(std::string_view reply, std::string_view fallback) {
  if (reply.size() < 9) return std::string(fallback);
  std::string_view text = reply.substr(4, reply.find(' ', 4) - 4);
  bool is_status = text.size() >= 5 && (text[0] == '2' || text[0] == '4' || text[0] == '5') && text[1] == '.' &&
                   std::count(text.begin(), text.end(), '.') == 2 &&
                   std::all_of(text.begin(), text.end(), [](char c) { return c == '.' || (c >= '0' && c <= '9'); });
  return std::string(is_status ? text : fallback);
}

std::string write_notification(const Notification& n) {
  const journal::MessageRecord& message = n.entry->message;
  std::string boundary = "holdfast-" + n.id;
  bool is_8_bit = !is_ascii(n.original);
  std::string encoding = is_8_bit ? "8bit" : "7bit";
  bool is_international =
      !is_ascii(message.mail_from) || std::any_of(n.recipients.begin(), n.recipients.end(), [](const auto& one) { return !is_ascii(one.address); });
  std::string out;
  out += fmt::format("From: Mail Delivery System <MAILER-DAEMON@{}>\r\n", n.reporting_mta);
  out += fmt::format("To: <{}>\r\n", clean(message.mail_from));
  out += fmt::format("Subject: {}\r\n", subject(n.action));
  out += fmt::format("Date: {}\r\n", format_date(n.time_us));
  out += fmt::format("Message-ID: <{}@{}>\r\n", boundary, n.reporting_mta);
  if (!message.message_id.empty()) out += fmt::format("In-Reply-To: <{}>\r\n", clean(message.message_id));
  out += "Auto-Submitted: auto-replied\r\nMIME-Version: 1.0\r\n";
  out += fmt::format("Content-Type: multipart/report; report-type=delivery-status;\r\n\tboundary=\"{}\"\r\n", boundary);
  if (is_8_bit || is_international) out += "Content-Transfer-Encoding: 8bit\r\n";

  out += fmt::format("\r\n--{}\r\nContent-Type: text/plain; charset=utf-8\r\n{}\r\n", boundary,
                     is_international ? "Content-Transfer-Encoding: 8bit\r\n" : "");
  out += explanation(n) + "\r\n\r\n";
  for (const NotificationRecipient& one : n.recipients)
    out += fmt::format("  {}\r\n{}", clean(one.address), one.reply.empty() ? "" : fmt::format("    {}\r\n", shown(one.reply, is_international)));

  out +=
      fmt::format("\r\n--{}\r\nContent-Type: {}\r\n{}\r\n", boundary, is_international ? "message/global-delivery-status" : "message/delivery-status",
                  is_international ? "Content-Transfer-Encoding: 8bit\r\n" : "");
  out += fmt::format("Reporting-MTA: dns; {}\r\n", n.reporting_mta);
  if (std::string envid = parameter(message.mail_params, "ENVID"); !envid.empty())
    out += fmt::format("Original-Envelope-Id: {}\r\n", clean(decode_xtext(envid)));
  out += fmt::format("Arrival-Date: {}\r\n", format_date(message.time_us));
  for (const NotificationRecipient& one : n.recipients) {
    out += "\r\n";
    if (std::string original = parameter(one.params, "ORCPT"); !original.empty()) {
      std::size_t type = original.find(';');
      if (type != std::string::npos)
        out += fmt::format("Original-Recipient: {}; {}\r\n", clean(original.substr(0, type)), clean(decode_xtext(original.substr(type + 1))));
    }
    out += fmt::format("Final-Recipient: {}; {}\r\nAction: {}\r\nStatus: {}\r\n", address_type(one.address), clean(one.address), word(n.action),
                       one.status);
    if (!n.remote_mta.empty()) out += fmt::format("Remote-MTA: dns; {}\r\n", clean(n.remote_mta));
    if (!one.reply.empty())
      out += fmt::format("Diagnostic-Code: {}; {}\r\n", is_smtp_reply(one.reply) ? "smtp" : "x-holdfast", shown(one.reply, is_international));
    if (n.action == Action::delayed) out += fmt::format("Will-Retry-Until: {}\r\n", format_date(n.will_retry_until_us));
  }

  out += fmt::format("\r\n--{}\r\nContent-Type: {}\r\nContent-Transfer-Encoding: {}\r\n\r\n", boundary,
                     n.is_whole ? "message/rfc822" : "text/rfc822-headers", encoding);
  out += n.original;
  if (!n.original.ends_with("\r\n")) out += "\r\n";
  out += fmt::format("\r\n--{}--\r\n", boundary);
  return out;
}

bool has_spf_pass(std::string_view header, const std::string& gateway) {
  if (gateway.empty()) return false;
  std::string low = journal::normalise(header), name = journal::normalise(gateway);
  for (std::size_t at = 0; at < low.size();) {
    // A field with its folded lines.
    std::size_t end = low.find("\r\n", at);
    while (end != std::string::npos && end + 2 < low.size() && (low[end + 2] == ' ' || low[end + 2] == '\t')) end = low.find("\r\n", end + 2);
    std::string_view field(low.data() + at, (end == std::string::npos ? low.size() : end) - at);
    if (field.empty()) return false;
    constexpr std::string_view key = "authentication-results:";
    if (field.starts_with(key)) {
      std::string_view value = field.substr(key.size());
      value.remove_prefix(std::min(value.find_first_not_of(" \t\r\n"), value.size()));
      bool is_theirs = value.starts_with(name) && value.substr(name.size()).find_first_of("; \t\r") == 0;
      if (is_theirs && value.find("spf=pass") != std::string_view::npos) return true;
    }
    if (end == std::string::npos) return false;
    at = end + 2;
  }
  return false;
}

}  // namespace holdfast::failover
