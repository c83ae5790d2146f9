// A journal report, as archives for Exchange expect it: the envelope's facts as the outer message, the
// original attached.
#pragma once

#include <string>

#include "journal/reader.h"
#include "proxy/delivery.h"

namespace holdfast::proxy {

/// The report on an entry, whose content comes frame by frame, untouched, as message/rfc822.
///
/// @param hostname  ours
Payload journal_report(const journal::Entry& entry, const Payload& content, const std::string& hostname);
/// What MAIL says of it: BODY (RFC 6152, RFC 3030).
std::string body_of_report(const journal::Entry& entry);

}  // namespace holdfast::proxy
