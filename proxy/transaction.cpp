#include "proxy/transaction.h"

#include <algorithm>

namespace holdfast::proxy {

bool Transaction::has_accepted_recipients() const {
  return is_open && std::any_of(recipients.begin(), recipients.end(), [](const journal::Recipient& one) {
           return one.outcome == journal::Outcome::pending || one.outcome == journal::Outcome::held;
         });
}

journal::Outcome outcome_of(const Reply& final_reply) {
  if (final_reply.is_positive()) return journal::Outcome::forwarded;
  return final_reply.is_permanent() ? journal::Outcome::rejected : journal::Outcome::deferred;
}

}  // namespace holdfast::proxy
