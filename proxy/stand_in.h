// The stand-in: what Holdfast answers in the primary's place while it is away. Sans I/O.
//
// It answers as itself, offers what the primary offered last, and asks the directory about recipients.
#pragma once

#include <optional>
#include <string>

#include "failover/directory.h"
#include "proxy/board.h"
#include "proxy/command.h"
#include "proxy/settings.h"
#include "proxy/transaction.h"

namespace holdfast::proxy {

class StandIn {
 public:
  /// All must outlive the stand-in.
  StandIn(const Settings& settings, const RouteConfig& route, const RouteBoard& board, const failover::Directory& directory)
      : settings_(settings), route_(route), board_(board), directory_(directory) {}

  Reply greeting() const;
  /// What was offered last, or the least that every primary can.
  Reply ehlo() const;
  struct Asked {
    Verb verb;
    std::string address, params;  ///< of MAIL and RCPT
    bool is_malformed = false;    ///< MAIL or RCPT without FROM or TO
  };
  /// The answer to a command. transaction is as it was before the command.
  Reply answer(const Asked& asked, const Transaction& transaction) const;
  /// Why no more is held for a route that is out: a limit on held mail is reached. Nothing while there is room.
  static std::optional<Reply> no_room(const RouteConfig& route, const RouteBoard& board);
  /// The answer to a chunk that is not the last one (RFC 3030 2).
  static Reply chunk_taken(std::uint64_t size);
  /// The answer to a whole message that is in the journal.
  static Reply taken(journal::RecordId entry);

 private:
  Reply envelope(const Asked& asked, const Transaction& transaction) const;
  Reply recipient(const std::string& address) const;

  const Settings& settings_;
  const RouteConfig& route_;
  const RouteBoard& board_;
  const failover::Directory& directory_;
};

}  // namespace holdfast::proxy
