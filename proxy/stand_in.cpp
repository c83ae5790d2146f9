#include "proxy/stand_in.h"

#include <fmt/format.h>

#include "proxy/address.h"
#include "proxy/parameters.h"

namespace holdfast::proxy {
namespace {

Reply make(int code, std::string_view text) {
  Reply reply;
  reply.code = code;
  reply.wire = own_reply(code, text);
  return reply;
}

}  // namespace

Reply StandIn::greeting() const { return make(220, fmt::format("{} ESMTP", settings_.config.hostname)); }

Reply StandIn::ehlo() const {
  Reply reply;
  reply.code = 250;
  std::vector<std::string> keywords;
  std::optional<Reply> last = board_.ehlo();
  if (last) {
    std::vector<std::string_view> lines = last->lines();
    for (std::size_t i = 1; i < lines.size(); ++i) keywords.emplace_back(lines[i]);
  } else {
    keywords = {"PIPELINING", "SIZE", "8BITMIME", "ENHANCEDSTATUSCODES"};
  }
  reply.wire = fmt::format("250{}{}\r\n", keywords.empty() ? ' ' : '-', settings_.config.hostname);
  for (std::size_t i = 0; i < keywords.size(); ++i) reply.wire += fmt::format("250{}{}\r\n", i + 1 < keywords.size() ? '-' : ' ', keywords[i]);
  return reply;
}

Reply StandIn::recipient(const std::string& address) const {
  failover::Directory::Answer found = directory_.look_up(address, journal::now_us());
  if (found.verdict == failover::Directory::Verdict::known) return make(250, "2.1.5 Ok");
  if (found.verdict == failover::Directory::Verdict::refused)
    return make(550, fmt::format("5.1.1 <{}>: Recipient address rejected: User unknown", address));
  constexpr std::size_t none = SIZE_MAX;
  std::string_view domain = domain_of(address);
  bool is_ours = domain.empty() || route_of_domain(settings_.config, domain, none) != none;
  switch (route_.unknown_recipients) {
    case UnknownRecipients::accept:
      if (!is_ours) break;
      return make(250, "2.1.5 Ok");
    case UnknownRecipients::reject: return make(550, fmt::format("5.1.1 <{}>: Recipient address rejected: User unknown", address));
    case UnknownRecipients::defer: break;
  }
  return make(450, fmt::format("4.2.1 <{}>: Recipient cannot be verified now, try again later", address));
}

/// What the primary would refuse later is not taken now.
Reply StandIn::envelope(const Asked& asked, const Transaction& transaction) const {
  bool is_mail = asked.verb == Verb::mail;
  if (asked.is_malformed) return make(501, is_mail ? "5.5.4 Syntax: MAIL FROM:<address>" : "5.5.4 Syntax: RCPT TO:<address>");
  if (is_mail && transaction.is_open) return make(503, "5.5.1 Error: nested MAIL command");
  if (!is_mail && !transaction.is_open) return make(503, "5.5.1 Error: need MAIL command");
  if (auto malformed = first_malformed(asked.params, asked.verb)) return make(501, fmt::format("5.5.4 Error: bad parameter: {}", *malformed));
  bool is_address = asked.address.empty() ? is_mail : domain_of(asked.address).empty() || is_domain(domain_of(asked.address));
  if (!is_address) return make(501, is_mail ? "5.1.7 Bad sender address syntax" : "5.1.3 Bad recipient address syntax");
  if (!is_mail) return recipient(asked.address);
  return no_room(route_, board_).value_or(make(250, "2.1.0 Ok"));
}

std::optional<Reply> StandIn::no_room(const RouteConfig& route, const RouteBoard& board) {
  if (board.held.load(std::memory_order_relaxed) >= route.failover.max_held)
    return make(452, "4.3.1 Error: too much mail is held already, try again later");
  if (board.is_disk_low.load(std::memory_order_relaxed))
    return make(452, "4.3.1 Error: too little disk space is left for held mail, try again later");
  return std::nullopt;
}

Reply StandIn::answer(const Asked& asked, const Transaction& transaction) const {
  switch (asked.verb) {
    case Verb::ehlo: return ehlo();
    case Verb::helo: return make(250, settings_.config.hostname);
    case Verb::mail:
    case Verb::rcpt: return envelope(asked, transaction);
    case Verb::data:
      if (transaction.has_accepted_recipients()) return make(354, "End data with <CR><LF>.<CR><LF>");
      return transaction.recipients.empty() ? make(503, "5.5.1 Error: need RCPT command") : make(554, "5.5.1 Error: no valid recipients");
    case Verb::rset:
    case Verb::noop: return make(250, "2.0.0 Ok");
    case Verb::vrfy: return make(252, "2.0.0 Cannot verify now, but will take mail for known recipients");
    case Verb::help: return make(214, "2.0.0 The mail server is away; Holdfast takes mail for it");
    case Verb::auth: return make(454, "4.7.0 Temporary authentication failure");
    case Verb::etrn: return make(458, "4.3.0 Cannot start the queue now");
    case Verb::expn:
    default: return make(502, "5.5.2 Error: command not recognized");
  }
}

Reply StandIn::chunk_taken(std::uint64_t size) { return make(250, fmt::format("2.0.0 Ok: {} bytes", size)); }

Reply StandIn::taken(journal::RecordId entry) { return make(250, fmt::format("2.0.0 Ok: queued as {}", entry)); }

}  // namespace holdfast::proxy
