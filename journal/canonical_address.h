// Addresses and domains as they are compared. Of a domain with letters that DNS does not have, both spellings are one: "müller.example" and
// "xn--mller-kva.example" (RFC 5890, RFC 6531 3.7.1).
#pragma once

#include <string>
#include <string_view>

namespace holdfast::journal {

/// In lower case, its labels as they stand in DNS (A-labels, IDNA2008). What cannot be such a name stays as it is, in lower case. Thread-safe.
std::string canonical_domain(std::string_view domain);

/// In lower case (ASCII letters), without angle brackets, and its domain in canonical form. Thread-safe.
std::string canonical_address(std::string_view address);

}  // namespace holdfast::journal
