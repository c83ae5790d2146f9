// A delivery: one held entry on its way to some of its recipients, over one connection to the route's upstream.
#pragma once

#include "failover/hold_queue.h"
#include "journal/journal.h"
#include "proxy/upstream.h"

namespace holdfast::proxy {

/// What came of it, recipient by recipient.
struct DeliveryResult {
  std::string connection_failure;  ///< not empty: nothing happened, the whole is to be tried again
  bool may_have_arrived = false;   ///< the end of the message was sent, and its answer was lost
  bool tells_of_success = true;    ///< the primary honours NOTIFY=SUCCESS itself
  struct Verdict {
    std::uint32_t recipient;
    Reply reply;
  };
  std::vector<Verdict> verdicts;
};

/// Delivers an entry with its original envelope and one Received line on top. All references must outlive the task.
Task<DeliveryResult> deliver(UpstreamPool& pool, Loop& loop, journal::Journal& journal, const Opening& opening,
                             const journal::Entry& entry, const std::vector<std::uint32_t>& recipients, Wakeup& wakeup);

}  // namespace holdfast::proxy
