// The EHLO reply: what the primary offers, what of it Holdfast can honour, and what the client is shown. Sans I/O.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <optional>
#include <string>
#include <vector>

#include "proxy/command.h"
#include "proxy/reply.h"

namespace holdfast::proxy {

/// What was offered in an EHLO reply.
class Capabilities {
 public:
  /// Reads a positive EHLO reply. The first line, the greeting, is no keyword.
  static Capabilities of(const Reply& ehlo);

  bool has(std::string_view keyword) const;
  /// Whether all keywords of the other are here too.
  bool covers(const Capabilities& other) const;
  /// The words after a keyword, as written; nothing when it is not offered.
  std::optional<std::string> words_of(std::string_view keyword) const;
  /// Whether a word, in upper case, is among those after a keyword: PLAIN after AUTH.
  bool has_word(std::string_view keyword, std::string_view word) const;

 private:
  struct Line {
    std::string keyword;  ///< in upper case
    std::string words;
  };
  std::vector<Line> lines_;
};

struct EhloPolicy {
  bool offers_starttls = false;
  bool passes_auth = false;
  std::uint64_t message_size = 0;  ///< Holdfast's own limit in bytes
};

/// The primary's EHLO reply as the client is shown it: keywords that Holdfast cannot honour taken out, SIZE the smaller of
/// both, and Holdfast's own STARTTLS put in. All other bytes, and the order, stay.
std::string filter_ehlo(const Reply& ehlo, const EhloPolicy& policy);

/// The first parameter of MAIL or RCPT that was not offered, as written, or nothing. Without EHLO (capabilities is null) all that
/// Holdfast knows may be used; the primary will say what it thinks of it.
std::optional<std::string> first_unoffered(const EnvelopeCommand& command, const Capabilities* capabilities);

/// The first parameter that belongs to the other command, or whose value is not what its extension wants, as written; or nothing. A
/// primary looks itself; who answers in its place must not take what it would refuse later.
///
/// @param params  as they stood in the command, parted by spaces
/// @param verb    Verb::mail or Verb::rcpt
std::optional<std::string> first_malformed(std::string_view params, Verb verb);

/// Those parameters of a MAIL or RCPT that are offered, each behind a space.
///
/// @param params   as they stood in the command, parted by spaces
/// @param without  keys that are left out in any case, in upper case
std::string offered_params(std::string_view params, const Capabilities& capabilities, std::initializer_list<std::string_view> without = {});

/// What ENVID and ORCPT say, written as RFC 3461 4 wants it: many primaries take raw characters there, and so does who answers in their
/// place; those that do not would refuse the message for it. What is well written already is left as it is.
///
/// @param params  as offered_params() returns them
std::string with_xtext(std::string_view params);

}  // namespace holdfast::proxy
