// What careless senders write in header fields, as GMime reads it: it loses some of that. And what careless readers may see there.
// Sans I/O.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace holdfast::proxy {

/// Encoded words (RFC 2047) of a field's value. GMime decodes neighbours of one charset as if they were one: it loses all that stands
/// behind the first that is padded ("...=?= =?..."), and the end of what is not padded at all. An empty word of the other encoding
/// keeps apart what is padded; the last of those that are one is given its padding.
std::string with_regular_words(std::string_view value);

/// Addresses of a list (RFC 5322 3.4). GMime drops one whose local part has dots where there can be none ("a..b@", "a.@"), or whose
/// name has brackets ("[Ticket 7] Ada <ada@example.org>"): both may have them in quotes. It drops all that stands behind a semicolon
/// that ends no group, as Outlook writes lists: it becomes a comma.
std::string with_regular_addresses(std::string_view value);

/// All words of an address list that have an at sign, outside quotes and comments: whatever any reader could take for an address in
/// it, be the list well-formed or not. A local part in quotes is told without them.
std::vector<std::string> words_with_at_sign(std::string_view value);

}  // namespace holdfast::proxy
