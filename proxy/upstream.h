// Upstream: one connection to a primary, from connect to the point where a client's own EHLO can follow.
//
// UpstreamPool opens them, trying a route's addresses in order, and keeps idle ones for reuse. One pool a loop.
#pragma once

#include <functional>
#include <list>
#include <map>
#include <memory>
#include <optional>
#include <string>

#include "failover/primary_habits.h"
#include "failover/upstream_order.h"
#include "proxy/client_names.h"
#include "proxy/ehlo.h"
#include "proxy/occupancy.h"
#include "proxy/reply.h"
#include "proxy/resolver.h"
#include "proxy/settings.h"
#include "proxy/stream.h"
#include "proxy/transparency.h"

namespace holdfast::proxy {

/// Who the client is, for telling the primary.
struct ClientFacts {
  Endpoint client, server;              ///< its address and ours, as the network or the balancer says
  std::optional<ClientName> name = {};  ///< nothing: not asked for yet
};

/// Whose EHLO or HELO was the last that was accepted on a connection.
enum class Greeter { nobody, holdfast, client };

class Upstream {
 public:
  Upstream(FileDescriptor socket, Wakeup& owner, std::size_t address_index) : stream(std::move(socket), owner, true), address(address_index) {}

  Stream stream;
  std::size_t address;       ///< index of the route's upstream
  Duration opening_took{0};  ///< until it was ready for the first client
  Reply greeting;            ///< what the client is to see first
  Reply ehlo;                ///< its last answer to Holdfast's own EHLO
  std::uint64_t transactions = 0;
  bool was_reused = false;
  bool is_shared = false;  ///< other clients came before: what it has had enough of may be theirs
  Greeter greeter = Greeter::nobody;
  std::uint64_t greetings = 0;                   ///< that were accepted on it, of whomever
  std::optional<Capabilities> own_capabilities;  ///< what it offered to Holdfast itself, last
  bool may_be_reused = true;                     ///< false once something happened that the next client must not inherit

  enum class Poll { nothing, reply, failed };
  /// Looks whether a whole reply has come. On failed, failure says why.
  Poll poll_reply(Reply& reply);
  /// Waits for one reply. Empty when the deadline passed or the connection ended; failure then says which.
  Task<std::optional<Reply>> read_reply(Wakeup& wakeup, Deadline deadline);
  std::string failure;
  std::shared_ptr<Occupancy::Address> room;  ///< at its address
  std::optional<Occupancy::One> is_counted;  ///< among the attempts there, and once it was greeted among the connections
  bool is_full = false;                      ///< the primary has as many connections of Holdfast's as it takes, and this is one too many
  bool is_superseded = false;                ///< it was given up, before it was greeted, for one that became free
  bool has_tls_failed = false;
};

/// For whom a connection is opened, and until when that may take.
struct Opening {
  std::shared_ptr<const Settings> settings;
  std::size_t route;
  ClientFacts client;
  Deadline by = Deadline::max();
  Duration connect_patience = Duration::max();  ///< with the network, for each address; beside limits.timeouts.connect
  bool is_fresh = false;                        ///< a connection that served another client will not do
  bool is_ungreeted = false;                    ///< nor one on which Holdfast itself has greeted
  bool may_hide_client = false;                 ///< where the primary is to see the client's address and cannot be reached from it
  std::optional<std::size_t> only = {};         ///< of the route's upstreams
  bool waits_for_room = true;                   ///< when the primary has as many connections of Holdfast's as it takes
  std::function<bool()> is_gone = {};           ///< whether nobody wants it any more; asked when the wakeup is fired

  bool is_moot() const { return is_gone && is_gone(); }
  const RouteConfig& config() const { return settings->config.routes[route]; }
  const TimeoutsConfig& timeouts() const { return settings->config.limits.timeouts; }
};

class UpstreamPool {
 public:
  UpstreamPool(Loop& loop, Resolver& resolver, Occupancy& occupancy) : loop_(loop), resolver_(resolver), occupancy_(occupancy) {}

  struct Opened {
    std::unique_ptr<Upstream> upstream;  ///< null when no address of the route answers
    std::string failure;
    std::optional<Reply> refusal;              ///< the primary's own 4xx or 5xx greeting, when it gave one
    std::shared_ptr<Occupancy::Address> full;  ///< not null: what it has had enough of is Holdfast's connections
  };
  /// Takes an idle connection or opens a new one, and brings it to its greeting: PROXY header, TLS and XCLIENT as the route
  /// says.
  Task<Opened> open(Opening opening, Wakeup& wakeup);

  /// Sends EHLO with Holdfast's own name, where that was not the last to be sent. Returns an empty text, and own_capabilities are set
  /// then, or why it failed.
  Task<std::string> greet_as_self(Upstream& upstream, const Opening& opening, Wakeup& wakeup);

  /// What is known of the ways of each address (Upstream::room has its name).
  failover::PrimaryHabits& habits() { return habits_; }
  bool takes_another_greeting(const Upstream& upstream) const {
    return habits_.takes_another_greeting(upstream.room->name, upstream.greetings, loop_.now());
  }

  /// The primary has answered for a whole message on this connection.
  void lives(const Settings& settings, std::size_t route, const Upstream& upstream);

  /// Takes back a connection that has no transaction open. Keeps it if it may be reused; whoever waits for the primary to greet a new
  /// one gets it, or the room that it leaves.
  void give_back(std::shared_ptr<const Settings> settings, std::size_t route, std::unique_ptr<Upstream> upstream);

  /// The primary's reply to QUIT, once one was seen.
  const Reply* goodbye(const std::string& route) const;
  void learn_goodbye(const std::string& route, const Reply& reply) { goodbyes_[route] = reply; }

  /// Closes connections that have been idle for too long, or all.
  void sweep(bool all);

  /// A connection was lost, or what came over it cannot be trusted: for a while other addresses of the route are tried before that one.
  void broke_off(const Settings& settings, std::size_t route, std::size_t address, const std::string& why);

 private:
  /// A connection that waits for its next client. Whatever arrives on it meanwhile ends it: a primary has nothing to say then.
  struct Idle {
    Idle(Loop& loop, std::unique_ptr<Upstream> taken, Deadline until, std::shared_ptr<const Settings> opened_under)
        : wakeup(loop), upstream(std::move(taken)), expires(until), settings(std::move(opened_under)) {
      upstream->stream.give_to(wakeup);
    }
    bool is_usable() const { return upstream->stream.is_alive() && upstream->stream.input().empty(); }

    Wakeup wakeup;
    std::unique_ptr<Upstream> upstream;
    Deadline expires;
    std::shared_ptr<const Settings> settings;  ///< its address is a number in these
  };
  class Place;
  failover::UpstreamOrder& order(const RouteConfig& route);
  /// An upstream of the route, by index.
  struct Candidate {
    std::size_t index;
    std::vector<SocketAddress> addresses;
  };
  std::vector<Candidate> candidates(const Opening& opening);
  Task<Opened> try_addresses(const Opening& opening, Wakeup& wakeup);
  Task<Opened> try_upstream(const Candidate& candidate, std::size_t left, const Opening& opening, Wakeup& wakeup);
  void tell_of_failure(const RouteConfig& config, std::size_t address, const std::string& why);
  void answers_again(const Upstream& upstream, const Opening& opening);
  Task<void> wait_for_room(const Opening& opening, Wakeup& wakeup, Duration pause, Deadline latest);
  bool has_others_waiting(const std::string& route, const Upstream& upstream) const;
  Deadline share_of_time(const Opening& opening, std::size_t addresses_left) const;
  void make_room(const std::string& route);
  void wake_next_taker(const std::string& route);
  Deadline due(const Opening& opening, Duration patience) const { return std::min(opening.by, loop_.now() + patience); }
  Deadline due_for_greeting(const Opening& opening, std::size_t address, Deadline latest);
  Task<std::optional<Reply>> read_greeting(Upstream& upstream, const Opening& opening, Wakeup& wakeup);
  Task<std::unique_ptr<Upstream>> reuse(const Opening& opening, Wakeup& wakeup);
  Task<bool> answers(const SocketAddress& address, Wakeup& wakeup);
  bool is_itself(const Config& config, const SocketAddress& address);
  // Each returns an empty text, or why it failed.
  Task<std::string> connect_for_client(const SocketAddress& address, std::size_t index, const Opening& opening, Wakeup& wakeup,
                                       std::unique_ptr<Upstream>& upstream, std::optional<Reply>& refusal);
  Task<std::string> connect(const SocketAddress& address, ConnectFrom source, std::size_t index, const Opening& opening, Wakeup& wakeup,
                            std::unique_ptr<Upstream>& upstream);
  Task<std::string> prepare(Upstream& upstream, const Opening& opening, Wakeup& wakeup, bool with_tls);
  Task<std::string> secure(Upstream& upstream, const Opening& opening, Deadline deadline);
  Task<std::string> start_tls(Upstream& upstream, const Opening& opening, Wakeup& wakeup);
  Task<std::string> authenticate(Upstream& upstream, const Opening& opening, Wakeup& wakeup);
  Task<std::string> send_xclient(Upstream& upstream, const Opening& opening, Wakeup& wakeup);

  Loop& loop_;
  Resolver& resolver_;
  Occupancy& occupancy_;
  std::map<std::string, std::list<std::unique_ptr<Idle>>> idle_;
  /// Who has been waiting for a while for the primary to take a new connection: it may have room for so many and no more.
  struct Waiting {
    std::list<Wakeup*> takers;  ///< these would rather have an idle one
    std::size_t others = 0;
  };
  std::map<std::string, Waiting> waiting_;  ///< by route
  struct Order {
    std::vector<HostPort> of;
    failover::UpstreamOrder order;
  };
  std::map<std::string, Order> orders_;  ///< by route
  std::map<std::string, Reply> goodbyes_;
  failover::PrimaryHabits habits_;
  /// Whether an address is one of this machine's, as asked a moment ago.
  struct Own {
    bool is_own = false;
    Deadline known_until{};
  };
  std::map<std::string, Own> own_;  ///< of primaries whose port is one that Holdfast listens on everywhere
};

}  // namespace holdfast::proxy
