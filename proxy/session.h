// A session: one client connection, from its first byte to its last, and the primary's connection behind it.
//
// run() reads top to bottom: greet, then converse. Commands go to the primary in the batches in which they came, and
// replies come back in order; Holdfast's own replies take their place in that order. Content is handed to the journal before
// the primary gets its end (session_content.cpp).
//
// The session owns its streams and is one coroutine, which ends by itself.
#pragma once

#include <deque>
#include <memory>
#include <optional>
#include <string>

#include "proxy/command.h"
#include "proxy/content.h"
#include "proxy/stand_in.h"
#include "proxy/transaction.h"
#include "proxy/worker.h"

namespace holdfast::proxy {

class Session {
 public:
  Session(Worker& worker, const ListenerConfig& listener, FileDescriptor socket, const SocketAddress& peer, const SocketAddress& own);
  ~Session();
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;

  /// The whole session. Keeps itself alive; the object goes when the task ends.
  static Task<void> run(std::unique_ptr<Session> session);

  /// Ends the session at its next quiet moment.
  void drain() { wakeup_.fire(); }
  /// The breaker of a route has tripped: whoever waits for its primary waits in vain.
  void primary_is_out(const std::string& route);

 private:
  /// What an answer that is still to come belongs to.
  struct Awaited {
    Verb verb;
    std::string own_reply;        ///< not empty: Holdfast's own answer, waiting for its turn
    std::string address, params;  ///< of MAIL and RCPT
    bool is_binary = false;
    bool is_malformed = false;  ///< MAIL or RCPT without FROM or TO: for the primary to refuse
    std::string line;           ///< the command, with its CRLF
    bool is_sent = true;        ///< to this primary; not yet, where one that is gone was asked too
  };
  /// How a step ended.
  enum class Next { go_on, close };

  // Beginning, and beginning anew (session_greeting.cpp).
  Task<bool> greet();
  Task<bool> read_proxy_header();
  Task<bool> start_tls_with_client();
  Task<Next> client_starttls();
  bool enter_limits();
  void take_ehlo_reply(Reply& reply);
  void forget_capabilities();
  bool comes_second(const Awaited& awaited) const;
  void greet_elsewhere(bool was_slow);
  void learn_greetings();

  // What the client says (session_commands.cpp).
  bool take_commands();
  void take_command(std::string_view line);
  bool inherits_greeting(std::string_view line) const;
  bool takes_chunks() const;
  bool may_interrupt_chunks(Verb verb);
  void take_envelope(const Command& command, std::string_view line);
  void forward(Awaited awaited, std::string_view line);
  void send(const Awaited& awaited);
  void answer(int code, std::string_view text);
  void answer_error(int code, std::string_view text);
  void count_error();

  // Conversation (session.cpp).
  Task<void> converse();
  Task<Next> interlude();
  void notice_loss();
  void lose_patience();
  Task<bool> find_another();
  bool take_replies();
  static std::string nonsense_in(const Reply& reply, const Awaited& awaited);
  static bool is_misunderstood(const Awaited& awaited, const Reply& reply);
  static bool moves_no_mail(const Awaited& awaited);
  void answer_for_primary(const std::string& why);
  void take_reply(Reply& reply);
  void follow(Awaited& awaited, const Reply& reply);
  Duration patience_with(const Awaited& awaited) const;
  void flush();
  bool has_quiet() const { return awaited_.empty() && !transaction_.is_open; }
  /// No answer is due from the primary, and it has no part of a message that is still coming.
  bool owes_nothing() const { return awaited_.empty() && !content_; }
  Task<Next> quit();
  Task<Next> switch_route();
  void lose_upstream(const std::string& why);
  void lose_upstream_in_chunks(const std::string& why);
  void say_goodbye(int code, std::string_view text);
  Task<void> take_leave();

  // When the primary is not there (session_takeover.cpp).
  void use_route(std::size_t route);
  void follow_state();
  /// What came of it: a primary that is ready for the next command, Holdfast in its place, a primary that does not want this client
  /// (refusal_ is its word), or neither.
  enum class Reached { live, holding, refused, nowhere };
  /// One search for a primary that takes the session over.
  struct Search {
    Deadline began;
    bool is_after_loss;        ///< a connection was lost in the middle of something; otherwise there was none
    bool was_well;             ///< nothing was wrong with the primary before
    Deadline since{}, by{};    ///< since when it has answered nothing, and until when that is borne
    std::string why{};         ///< it was not reached
    bool is_full = false;      ///< it has as many connections of Holdfast's as it takes
    bool is_unwanted = false;  ///< it does not want this client
  };
  bool has_client_left() const;
  bool needs_no_primary() const;
  Task<Reached> reach_primary(std::string why, bool is_switching = false);
  Task<void> find_client_name();
  Search begin_search(std::string why);
  Task<void> pause_between_rounds(const Search& search);
  Task<std::optional<Reached>> try_until_late(Search& search, bool is_switching);
  Task<void> try_primary(const Opening& opening, Search& search);
  Reached stand_in_for_primary(const Search& search);
  void turn_away(Reached reached);
  Task<std::string> replay(Deadline by);
  Task<std::string> replay_envelope(Deadline by, bool is_batch);
  void write_outstanding();
  void send_unsent();
  void learn_recipient(const std::string& address, const Reply& reply);
  void note_verdict(const Reply& reply);
  StandIn stand_in() const;

  // Content (session_content.cpp).
  struct Content;
  Task<Next> relay_data();
  Task<Next> relay_bdat(BdatCommand chunk, std::string line);
  Task<Next> read_chunk(BdatCommand chunk, bool keeps_all, std::string& held);
  Task<Next> finish_chunk(const std::string& held, std::uint64_t chunk_size);
  /// How the client gets on with sending: least_progress within each limits.timeouts.data_block.
  struct Progress {
    Deadline due;
    std::uint64_t taken = 0;  ///< bytes, when the time began
  };
  bool is_flooded() const;
  Task<bool> wait_for_content(Progress& progress, std::uint64_t taken);
  void begin_content();
  void take_content(std::string_view piece);
  void forward_content(std::string_view piece);
  void watch_upstream();
  void refuse_bare_newline();
  Next abandon_content();
  void end_transaction();
  void drop_upstream();

  // What becomes of a whole message (session_verdict.cpp).
  Task<Next> finish_content(Content& content);
  Task<Reply> live_verdict(Content& content, bool is_committed, bool is_end_sent);
  Task<std::optional<Reply>> send_again(Content& content, std::string& failure, bool& is_end_sent);
  Task<std::optional<Reply>> hold_message(Content& content, const Reply* verdict = nullptr);
  Task<std::optional<Reply>> final_reply(std::string& failure);
  void send_end(Content& content);
  void give_to_control(Content& content);
  void settle(Content& content, const Reply& verdict);
  void mark_possible_duplicate(Content& content);
  bool is_void(const Content& content) const;
  Reply own_verdict() const;
  std::string protocol() const;
  journal::MessageRecord make_record() const;
  void tell_of_message(const Content& content, const Reply& reply);

  const LimitsConfig& limits() const { return settings_->config.limits; }
  std::uint64_t size_limit() const;
  const RouteConfig& route() const { return settings_->config.routes[route_]; }
  const std::string& hostname() const { return settings_->config.hostname; }
  Deadline after(Duration duration) const { return worker_.loop.now() + duration; }

  Worker& worker_;
  std::shared_ptr<const Settings> settings_;
  const ListenerConfig listener_;
  const std::string id_;
  Wakeup wakeup_;
  Stream client_;
  std::unique_ptr<Upstream> upstream_;
  std::size_t route_ = 0;
  RouteBoard* board_ = nullptr;            ///< of the route
  bool is_holding_ = false;                ///< Holdfast answers in the primary's place
  std::string lost_why_;                   ///< not empty: the connection to the primary was lost in the middle of something
  std::optional<Deadline> trouble_since_;  ///< the primary has answered nothing since then
  std::optional<Reply> refusal_;           ///< what a primary that was reached said instead of taking the client over
  bool has_faltered_ = false;              ///< the primary, in this transaction, and was reported for it
  unsigned farewells_ = 0;                 ///< how often it has said 421 to what was asked last
  bool is_primary_out_ = false;            ///< the breaker has tripped while we waited
  bool needs_ungreeted_ = false;           ///< another's greeting must not stand in for this client's, nor keep the primary from taking it
  /// A connection on which others had greeted, and this client's greeting was refused or not answered.
  struct SpentConnection {
    std::size_t address;
    std::uint64_t greetings;
    bool was_slow;
  };
  std::optional<SpentConnection> spent_;
  Deadline greeting_sent_{};  ///< the client's, to the primary
  ClientFacts facts_;
  std::unique_ptr<ConnectionCounts::Place> place_;

  std::string helo_line_;                     ///< the client's last EHLO or HELO, for a new connection to the primary
  std::string helo_;                          ///< the name in it
  std::optional<Capabilities> capabilities_;  ///< what the primary offers
  std::optional<Capabilities> told_;          ///< what the client was told in answer to its EHLO
  bool has_unsent_ = false;                   ///< what is awaited was asked of a primary that is gone, and not of this one yet
  bool offers_less_ = false;                  ///< the primary, having taken the place of the one that the client was told about
  std::string auth_;                          ///< the mechanism with which the client logged in at the primary
  std::string pending_auth_;
  bool has_lost_login_ = false;  ///< the primary went between two steps of it
  static constexpr std::string_view login_is_lost = "4.7.0 Temporary authentication failure";

  std::deque<Awaited> awaited_;
  bool is_synchronising_ = false;  ///< a command is out after which the client must wait
  enum class Mode { commands, data, bdat, auth, starttls, quitting, switching } mode_ = Mode::commands;
  std::optional<BdatCommand> bdat_;
  std::string line_;  ///< BDAT's, QUIT's or the switching RCPT's, as it came
  Transaction transaction_;
  std::unique_ptr<Content> content_;
  std::uint64_t commands_ = 0, errors_ = 0;
  bool is_over_ = false;     ///< nothing more is to be read from the client
  bool is_refused_ = false;  ///< Holdfast ends the session; it is over when what is due has been answered
};

}  // namespace holdfast::proxy
