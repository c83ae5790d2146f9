// A submission session: a person who has an emergency account sends mail (RFC 6409).
//
// Holdfast takes the mail itself: it is journaled as held, one entry for each route that it goes by, and the
// queue delivers it: to colleagues by their route (they see it in their INBOX at once), to the world by the
// egress route. The listener is like this while the primary is out; otherwise it passes everything through
// (session.h), see ListenerConfig::auth.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "proxy/command.h"
#include "proxy/imap_session.h"
#include "proxy/worker.h"

namespace holdfast::proxy {

/// Whether a submission listener asks the emergency accounts now, rather than the primary.
bool asks_accounts(const ListenerConfig& listener, const Settings& settings, Control& control);

class SubmissionSession {
 public:
  SubmissionSession(Worker& worker, MailboxService& service, const ListenerConfig& listener, FileDescriptor socket, const SocketAddress& peer,
                    const SocketAddress& own, std::unique_ptr<ConnectionCounts::Place> place);
  ~SubmissionSession();
  SubmissionSession(const SubmissionSession&) = delete;
  SubmissionSession& operator=(const SubmissionSession&) = delete;

  /// The person must log in again.
  void shut_out(const std::string& person);
  /// Looks whether Holdfast is shutting down.
  void look() { wakeup_.fire(); }

  static Task<void> run(std::unique_ptr<SubmissionSession> session);

 private:
  struct Outgoing;

  Task<bool> read_line(std::string& line);
  Task<bool> start_tls();
  Task<void> serve(std::string line);
  void greet(const Command& command);
  Task<void> authenticate(std::string argument);
  Task<std::string> ask(std::string challenge);
  void mail(const Command& command);
  void rcpt(const Command& command);
  Task<void> data();
  Task<bool> read_content(std::vector<std::unique_ptr<Outgoing>>& all, std::string& header, std::string& refusal);
  std::string refusal_of(const std::string& header) const;
  Task<bool> commit(std::vector<std::unique_ptr<Outgoing>>& all);
  journal::MessageRecord make_record(const Outgoing& outgoing, std::string_view beginning) const;
  std::size_t route_of(const std::string& address) const;
  bool is_own(const std::string& address) const;
  bool may_log_in_here() const;
  bool gets_copy() const;
  bool has_room_on(std::size_t route);
  bool may_write_to(std::size_t recipients);
  void reply(int code, std::string_view text);
  void error(int code, std::string_view text);
  void reset();

  Worker& worker_;
  MailboxService& service_;
  std::shared_ptr<const Settings> settings_;
  const ListenerConfig listener_;
  const std::string id_;
  Wakeup wakeup_;
  Stream stream_;
  const Endpoint client_, server_;
  const std::unique_ptr<ConnectionCounts::Place> place_;
  bool is_over_ = false;
  std::uint64_t errors_ = 0;
  std::uint64_t commands_ = 0;  ///< since the last message that was taken
  std::string helo_, person_;

  bool is_open_ = false;  ///< a transaction is
  std::string mail_from_, mail_params_;
  struct Recipient {
    std::string address, params;
    std::size_t route;
  };
  std::vector<Recipient> recipients_;
};

}  // namespace holdfast::proxy
