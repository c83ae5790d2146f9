// What Holdfast adds to or writes about held mail: the Received line (RFC 5321 4.4) and delivery status notifications
// (RFC 3464). Values in, text out.
#pragma once

#include <string>
#include <vector>

#include "journal/reader.h"

namespace holdfast::failover {

/// The one line that is put on top of a held message when it is delivered. for_recipient is left out when empty.
std::string received_line(const journal::Entry& entry, const std::string& hostname, const std::string& for_recipient);

/// What the sender asked for with a recipient (RFC 3461 4.1); without NOTIFY only failures are told.
struct Notify {
  bool success = false, failure = true, delay = false;
};
Notify notify_of(std::string_view rcpt_params);

enum class Action { failed, delayed, relayed };

struct NotificationRecipient {
  std::string address, params;
  std::string reply;   ///< the primary's last words: "550 5.1.1 ...", or what became of the connection; may be empty
  std::string status;  ///< RFC 3463, such as 5.1.1
};

struct Notification {
  Action action = Action::failed;
  std::string reporting_mta;             ///< our name
  std::string remote_mta;                ///< whose words the replies are; may be empty
  std::int64_t time_us = 0;              ///< now
  std::int64_t will_retry_until_us = 0;  ///< of delayed ones
  std::string id;                        ///< makes boundary and Message-ID unique
  const journal::Entry* entry = nullptr;
  std::vector<NotificationRecipient> recipients;
  std::string original;   ///< the header, or all of the message when the sender asked for it (RET=FULL)
  bool is_whole = false;  ///< original is all of it
};
/// The notification as a message, to be sent from <> to the entry's sender.
std::string write_notification(const Notification& notification);

/// "550 5.1.1 unknown", and not what Holdfast says of a connection: "it closed the connection".
bool is_smtp_reply(std::string_view words);

/// The enhanced status code in a reply ("550 5.1.1 no" -> 5.1.1), or fallback.
std::string status_in(std::string_view reply, std::string_view fallback);

/// True when the gateway in front, by the name it signs Authentication-Results with (RFC 8601), noted that SPF passed. Other
/// names are not believed: anybody can write them.
bool has_spf_pass(std::string_view header, const std::string& gateway);

}  // namespace holdfast::failover
