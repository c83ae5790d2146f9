// A transaction: one envelope as the primary has accepted it so far, and what the journal will say of it. Sans I/O.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "journal/record.h"
#include "proxy/reply.h"

namespace holdfast::proxy {

struct Transaction {
  bool is_open = false;  ///< the primary has accepted MAIL
  std::string mail_from, mail_params;
  std::vector<journal::Recipient> recipients;  ///< with the primary's answers; those it refused included
  bool is_binary = false;                      ///< BODY=BINARYMIME: lines mean nothing in the content

  /// Accepted by the primary, or by Holdfast in its place.
  bool has_accepted_recipients() const;
  void reset() { *this = Transaction(); }
};

/// What the primary's reply to the whole message means for the recipients that it had accepted.
journal::Outcome outcome_of(const Reply& final_reply);

}  // namespace holdfast::proxy
