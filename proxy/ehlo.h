// The EHLO reply: what the primary offers, what of it Holdfast can honour, and what the client is shown. Sans I/O.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

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

}  // namespace holdfast::proxy
