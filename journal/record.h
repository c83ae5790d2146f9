// The records of the journal as values, and their encoding to bytes and back (FORMAT.md, "Records").
//
// Encoding knows nothing of storage or keys. Decoding trusts nothing: it is fuzzed.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "journal/crypto.h"

namespace holdfast::journal {

/// A record's place in the log, and an entry's name. Ascends; never used twice.
using RecordId = std::uint64_t;

enum class RecordKind : std::uint8_t { message = 1, outcome = 2, state = 3, erasure = 4, access = 5, legal_hold = 6 };

enum class Direction : std::uint8_t { inbound = 0, outbound = 1 };

/// What became of one recipient (DESIGN "outcome").
enum class Outcome : std::uint8_t {
  pending = 0,  ///< not settled yet
  forwarded = 1,
  held = 2,
  delivered = 3,
  rejected = 4,
  deferred = 5,
  bounced = 6,
  expired = 7,
  dropped = 8,
  erased = 9,
  abandoned = 10,
};
std::string_view to_string(Outcome outcome);
std::string_view to_string(Direction direction);
/// The outcome with that name, or nothing.
std::optional<Outcome> parse_outcome(std::string_view name);

struct Recipient {
  std::string address;                 ///< as the client wrote it, without the angle brackets
  std::string params;                  ///< the ESMTP parameters after it, as written
  std::string reply;                   ///< what the primary said to RCPT
  Outcome outcome = Outcome::pending;  ///< `rejected` or `deferred` when RCPT was refused
};

using ContentId = std::array<char, 16>;

/// One journaled transaction: envelope, connection facts, and where its content is.
struct MessageRecord {
  std::int64_t time_us = 0;  ///< microseconds since 1970, UTC: when the content was complete
  Direction direction = Direction::inbound;
  std::string session;  ///< the session's name in the log
  std::string route;
  std::string client;  ///< address and port
  std::string server;  ///< where it connected to: address and port
  std::string helo;
  std::string protocol;  ///< as a Received line names it (RFC 3848): SMTP, ESMTP, ESMTPS, ...
  std::string tls;       ///< protocol and cipher, empty for plain
  std::string auth;      ///< the AUTH mechanism that the primary accepted, empty for none
  std::string mail_from;
  std::string mail_params;
  std::vector<Recipient> recipients;
  std::uint64_t size = 0;  ///< of the content, in bytes
  Hash content_hash{};     ///< SHA-256 of the content
  ContentId content_id{};  ///< binds the stored frames to this record
  std::string message_id;  ///< from the content's header, without brackets; may be empty
  std::string subject;     ///< the raw header value, unfolded and cut short; may be empty
};

/// The reply that goes with the outcome `abandoned` of what was pending when Holdfast stopped: the primary may have taken it, and the client
/// may know that.
constexpr std::string_view stopped_before_answer = "Holdfast stopped before the primary's answer was on record";

/// What became of an entry's recipients. Later records of one entry override earlier ones, recipient by recipient.
struct OutcomeRecord {
  std::int64_t time_us = 0;
  RecordId entry = 0;
  bool is_possible_duplicate = false;  ///< the primary may have taken the message although its answer was lost
  /// Stands for all recipients that are still pending.
  static constexpr std::uint32_t every_pending = 0xffffffff;
  struct Change {
    std::uint32_t recipient;  ///< index into the entry's recipients, or every_pending
    Outcome outcome;
    std::string reply;
  };
  std::vector<Change> changes;
};

/// A route's state as it was changed to, by whom and why.
struct StateRecord {
  std::int64_t time_us = 0;
  std::string route;
  std::uint8_t state = 0, mode = 0;  ///< as failover/route_state.h numbers them
  std::string by, reason;
};

/// Records that were, or are about to be, erased: by whom and why.
struct ErasureRecord {
  std::int64_t time_us = 0;
  std::string by, reason;
  std::vector<RecordId> records;  ///< messages, and the outcome records that belong to them
};

/// That a whole segment was, or is about to be, taken away: an erasure without a list, whose reason names the segment.
ErasureRecord prune_record(std::uint32_t segment, const std::string& by, const std::string& reason);
/// The segment, if it is the record of one that was taken away.
std::optional<std::uint32_t> pruned_segment(const ErasureRecord& record);
/// The same of a segment that was, or is about to be, rewritten without its mail.
ErasureRecord emptying_record(std::uint32_t segment, const std::string& by, const std::string& reason);
std::optional<std::uint32_t> emptied_segment(const ErasureRecord& record);

/// Somebody read content: who, by which command, why, and how much.
struct AccessRecord {
  std::int64_t time_us = 0;
  std::string by, command, reason;
  std::uint64_t entries = 0;       ///< how many were to be read
  std::vector<RecordId> examples;  ///< which; the first hundred
};

/// A legal hold was set, or lifted: what it names may be neither erased nor pruned. What is empty or 0 does not matter.
struct LegalHoldRecord {
  std::int64_t time_us = 0;
  bool is_set = true;
  std::string name, by, reason;
  std::string sender, recipient, message_id;
  std::int64_t since_us = 0, until_us = 0;
  std::vector<RecordId> entries;
};

/// Brings the recipients up to date with an outcome record of their entry.
void bring_up_to_date(std::vector<Recipient>& recipients, const OutcomeRecord& outcome);

std::string encode(const MessageRecord& record);
std::string encode(const OutcomeRecord& record);
std::string encode(const StateRecord& record);
std::string encode(const ErasureRecord& record);
std::string encode(const AccessRecord& record);
std::string encode(const LegalHoldRecord& record);
std::optional<MessageRecord> decode_message(std::string_view bytes);
std::optional<OutcomeRecord> decode_outcome(std::string_view bytes);
std::optional<StateRecord> decode_state(std::string_view bytes);
std::optional<ErasureRecord> decode_erasure(std::string_view bytes);
std::optional<AccessRecord> decode_access(std::string_view bytes);
std::optional<LegalHoldRecord> decode_legal_hold(std::string_view bytes);

/// Microseconds since 1970, UTC.
std::int64_t now_us();

}  // namespace holdfast::journal
