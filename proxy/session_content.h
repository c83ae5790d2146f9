// The content of one message on its way through a session.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "journal/draft.h"
#include "proxy/content.h"
#include "proxy/session.h"

namespace holdfast::proxy {

struct Session::Content {
  Content(Worker& worker, Wakeup& wakeup)
      : ticket(std::make_shared<LoopTicket>(worker.loop, wakeup)), draft(worker.shared.journal.writer(), ticket) {}
  ~Content() { ticket->forget(); }

  std::shared_ptr<LoopTicket> ticket;
  journal::Draft draft;
  ContentDecoder decoder;  ///< DATA
  ContentEncoder encoder;  ///< DATA
  NewlineCheck newlines;   ///< BDAT
  bool is_bdat = false;
  bool is_streaming = false;  ///< the primary has begun to get it; else all of it is in the draft
  bool is_too_large = false;
  std::string held_back;               ///< BDAT: the last chunk's command and bytes that the primary must not get before the commit
  std::optional<Reply> early_reply;    ///< the primary's word, given before it was asked
  std::string lost_why;                ///< the primary went away while the content came
  bool is_possible_duplicate = false;  ///< an end of this message was sent, and its answer lost: that is on record
  bool is_orphaned = false;            ///< chunks of it went to a connection that is gone: later ones must not go to another
  bool is_held = false;                ///< Holdfast has taken responsibility for it, or for some of its recipients
  bool is_for_nobody = false;          ///< the client left before anybody had an answer for it
  bool is_unholdable = false;          ///< that could not be written into the journal
};

}  // namespace holdfast::proxy
