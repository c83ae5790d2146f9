// SMTP replies as primaries send them (RFC 5321 4.2), kept byte for byte. Sans I/O.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace holdfast::proxy {

struct Reply {
  int code = 0;
  std::string wire;  ///< all lines, each with its CRLF, as they came

  bool is_positive() const { return code >= 200 && code < 300; }
  bool is_intermediate() const { return code >= 300 && code < 400; }
  bool is_transient() const { return code >= 400 && code < 500; }
  bool is_permanent() const { return code >= 500 && code < 600; }
  /// To RCPT, that the transaction has as many recipients as it may have: 452, or 552 as RFC 821 had it (RFC 5321 4.5.3.1.10).
  bool says_too_many() const;
  /// RFC 5321 4.2.2: not recognized, or not implemented.
  bool is_command_unknown() const { return code == 500 || code == 502; }
  /// It has an enhanced status code (RFC 3463) that begins so: "4.7.".
  bool has_status(std::string_view beginning) const { return wire.size() > 4 && wire.compare(4, beginning.size(), beginning) == 0; }
  /// A refusal of this client or of what it wants; else it tells that the primary itself is in trouble: 421 and 4.3.x.
  bool is_about_client() const { return is_permanent() || has_status("4.7.") || (is_transient() && code != 421 && !has_status("4.3.")); }
  /// To who has been refused before: 421 because of too many errors, by its words. Not every server has a code for that.
  bool has_had_enough() const;
  /// The texts of the lines, without codes and line ends.
  std::vector<std::string_view> lines() const;
  /// All on one line without the line end, for the record and the log: "250 2.0.0 Ok: queued as 4A3".
  std::string summary() const;
};

/// Cuts a stream of bytes into replies.
class ReplyParser {
 public:
  /// The largest reply that is taken; more is nonsense or an attack.
  static constexpr std::size_t max_size = 64 * 1024;

  enum class State { incomplete, complete, malformed };

  /// Looks for a whole reply at the start of input. On complete, reply and consumed are set. malformed means: a line
  /// without a three-digit code of 200 to 599, codes that differ within a reply, a bare CR, LF or a NUL, or more than max_size bytes
  /// without an end.
  State parse(std::string_view input, Reply& reply, std::size_t& consumed) const;
};

/// A reply of Holdfast's own: "code text" with CRLF. text may begin with an enhanced status code (RFC 3463).
std::string own_reply(int code, std::string_view text);

}  // namespace holdfast::proxy
