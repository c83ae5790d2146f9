// Control: the thread that decides for all routes. It probes the primaries, runs breakers and states, keeps what is held in order and
// has it delivered; sessions tell it what they see, operators what they want.
//
// What sessions must know at once is on each route's board. Everything else lives on the control loop.
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <thread>

#include "failover/breaker.h"
#include "failover/clock_watch.h"
#include "failover/hold_queue.h"
#include "failover/notification.h"
#include "failover/trust.h"
#include "journal/journal.h"
#include "proxy/board.h"
#include "proxy/delivery.h"
#include "proxy/json.h"
#include "proxy/keeper.h"
#include "proxy/resolver.h"
#include "proxy/settings.h"
#include "proxy/upstream.h"

namespace holdfast::proxy {

/// One recipient that Holdfast has taken responsibility for.
struct HeldRecipient {
  std::uint32_t index;
  std::string address;
};

/// A route as control sees it. Belongs to the control loop.
struct ControlledRoute {
  ControlledRoute(RouteBoard& on, const FailoverConfig& config) : board(on), breaker(config.breaker), queue(config.retry) {}

  RouteBoard& board;
  failover::Breaker breaker;
  failover::RouteState state;
  failover::HoldQueue queue;
  /// Refused for good, but the sender could not be told: for the operator. By entry: recipient and the primary's words.
  std::map<failover::EntryId, std::map<std::uint32_t, std::string>> kept;
  failover::Trust trust;
  std::set<failover::EntryId> doubted;        ///< refused for good, which is not believed: to be tried again
  failover::EntryId doubted_to = 0;           ///< up to here they were tried last
  failover::EntryId loaded_to = 0;            ///< entries up to here are in the queue, or were
  bool is_all_loaded = true;                  ///< nothing is left on disk only
  std::uint64_t under_way = 0;                ///< deliveries
  std::uint64_t delivered = 0;                ///< entries, since the start
  failover::EntryId skipped_to = 0;           ///< entries up to here were left on disk, for want of room in the queue
  std::size_t blocked = 0;                    ///< entries in the queue that could go to nobody when that was looked at last
  Deadline looks_again{};                     ///< at that
  std::set<failover::EntryId> settled_ahead;  ///< of those left on disk: the queue must not load them
  failover::EntryId delay_told_to = 0;
  std::uint64_t seen_successes = 0;
  Deadline paused_until{};  ///< after a connection failed
  Duration pause{0};
  std::vector<std::pair<Deadline, std::uint64_t>> progress;  ///< (when, delivered) lately, for the estimate
  std::unique_ptr<Wakeup> wakeup;                            ///< of the dispatcher
  std::unique_ptr<Wakeup> prober;
  std::unique_ptr<Wakeup> watcher;
  std::size_t probed = 0;     ///< the upstream that answered the last probe
  bool is_in_doubt = false;   ///< something went wrong since the last probe
  Duration patience{0};       ///< of the next probe, when the usual is not enough
  std::string limit_reached;  ///< the key of a limit on held mail that keeps more from being held
  bool expires_soon = false;  ///< the oldest of what is held, unless the primary comes back
  bool is_configured = true;
  std::size_t index = 0;  ///< among the configured; of one that is not, the first's, whose limits it takes over
};

class Control {
 public:
  /// What is called on the control thread.
  struct Calls {
    std::function<void(const std::string& route)> on_trip;  ///< a breaker has tripped
    std::function<void(const std::string& route, const failover::RouteState::Status& status)> on_change;
    std::function<void(const std::string& route, const std::string& what)> on_held_trouble;  ///< somebody should know of its held mail
  };
  Control(journal::Journal& journal, Resolver& resolver, ClientNames& names, Occupancy& occupancy, std::unique_ptr<journal::SealedStore> store,
          Calls calls);
  ~Control();

  /// Takes a configuration; before start() the first time. From the main thread.
  void configure(std::shared_ptr<const Settings> settings);
  /// Reads what was held and decided before, and starts the thread. Error: the journal cannot be read.
  Status start();
  /// No delivery is begun any more; those under way go on. Thread-safe, does not wait.
  void finish_deliveries();
  /// Whether the primary has answered for all that it has whole: what else is under way may be cut. Thread-safe.
  bool has_every_answer() const { return is_finishing_ && unanswered_ == 0; }
  /// Ends the thread; what is under way is cut.
  void stop();

  // For sessions; thread-safe, none of them waits.
  RouteBoard& board(const std::string& route) { return boards_.of(route); }
  failover::Directory& directory() { return directory_; }
  void failed(RouteBoard& board, const std::string& why);
  void faltered(RouteBoard& board, const std::string& why);
  /// A client has waited since then, and no address of the primary answered.
  void gave_up(RouteBoard& board, Deadline since, const std::string& why);
  /// An entry, durable in the journal, is Holdfast's to deliver.
  void hold(RouteBoard& board, journal::RecordId entry, std::int64_t time_us, std::vector<HeldRecipient> recipients);

  // For operators; thread-safe, they wait for the control loop: questions at most half a second, decisions four, which are carried out
  // though, however late. Else an error (unavailable).
  /// route may be empty for all.
  Result<Json> set_mode(const std::string& route, failover::Mode mode, const std::string& by, const std::string& reason);
  /// The same for all routes, without waiting for it.
  void set_all(failover::Mode mode, const std::string& by, const std::string& reason);
  void set_flag(bool is_there, const std::string& path);
  /// All configured routes. When the control loop does not answer, what is known of before, with its age as "late_s".
  Json status();
  /// A page of what is held on a route, or on all when its name is empty, oldest first: at most so many entries, which go on behind
  /// an entry of a route. "next" says where the following page begins.
  Result<Json> queue_list(const std::string& route, const std::string& from_route, failover::EntryId after, std::size_t most);
  /// One held entry as in the list, with the recipients that it waits for.
  Result<Json> queue_show(failover::EntryId entry);
  /// 0 means all.
  Result<Json> queue_retry(failover::EntryId entry);
  /// "dropped" says for how many recipients. All or nothing: when one of the entries is being delivered at this moment, it is
  /// "delivering". Those that are not held are let be; when none is, that is a "problem".
  Result<Json> queue_drop(const std::vector<failover::EntryId>& entries, const std::string& by, const std::string& reason);

 private:
  // On the control loop (control.cpp).
  std::optional<Json> call(std::function<Json()> action, std::chrono::milliseconds patience);
  Result<Json> ask(std::function<Json()> question);
  Result<Json> decide(std::function<Json()> action);
  const FailoverConfig& config_of(const ControlledRoute& route) const;
  ControlledRoute& route_named(const std::string& name);
  void apply(ControlledRoute& route, bool has_changed);
  void apply_breaker(ControlledRoute& route, bool was_open);
  void update_backlog(ControlledRoute& route);
  Status restore(ControlledRoute& route);
  void set_to_work(ControlledRoute& route);
  Task<void> probe(ControlledRoute& route);
  Task<std::string> probe_once(ControlledRoute& route, Wakeup& wakeup);
  Task<void> watch_standbys(ControlledRoute& route);
  Task<void> look_at(ControlledRoute& route, std::size_t upstream);
  Opening opening_as_self(const ControlledRoute& route) const;
  Task<void> tick();
  void remember(ControlledRoute& route);
  void watch_room(ControlledRoute& route);
  void watch_age(ControlledRoute& route);
  std::int64_t came_us(const ControlledRoute& route, failover::EntryId entry) const;
  Duration age(const ControlledRoute& route, failover::EntryId entry) const;
  std::optional<Duration> expires_in(const ControlledRoute& route) const;
  Json take_mode(const std::string& route, failover::Mode mode, const std::string& by, const std::string& reason);
  Json describe(ControlledRoute& route);
  Json describe_all();
  void note_status();
  std::vector<failover::EntryId> held_behind(ControlledRoute& route, failover::EntryId after, std::size_t most);
  Json describe_held(ControlledRoute& route, failover::EntryId entry);
  struct HeldEntry {
    ControlledRoute* route = nullptr;
    std::vector<std::uint32_t> recipients;
  };
  HeldEntry find_on_disk(failover::EntryId entry);
  HeldEntry take_held(failover::EntryId entry);

  // Held mail of routes that are no longer configured (control_heirs.cpp).
  Status find_departed();
  ControlledRoute& heir_of(const journal::Entry& entry, std::uint32_t recipient);
  void hand_over(ControlledRoute& departed);

  void report(RouteBoard& board, std::function<void(failover::Breaker&)> what);

  // Held mail: what is delivered when (control_queue.cpp).
  /// Entries of a route in memory at once; the rest waits on disk.
  static constexpr std::size_t window = 20000;
  /// What waits behind recipients who take nothing comes on top of it, up to so many recipients: about 100 MB.
  static constexpr std::size_t most_recipients = 500'000;
  Task<void> dispatch(ControlledRoute& route);
  bool refill(ControlledRoute& route);
  bool has_room(ControlledRoute& route);
  Status load(ControlledRoute& route, journal::RecordId entry, const std::vector<std::uint32_t>& recipients);
  void enqueue(ControlledRoute& route, journal::RecordId entry, std::int64_t time_us, const std::vector<HeldRecipient>& recipients);
  bool may_deliver(const ControlledRoute& route) const;
  std::unique_ptr<Errand> next_errand(ControlledRoute& route, const Errand* ahead);
  Task<Opening> opening_for(const ControlledRoute& route, const journal::MessageRecord& message, Wakeup& wakeup);
  Task<void> deliver_on(ControlledRoute& route, std::unique_ptr<Errand> errand);
  void connection_failed(ControlledRoute& route, const failover::HoldQueue::Delivery& delivery, const DeliveryResult& result);
  /// It cannot be delivered, and must not be forgotten: an operator sees it in the queue.
  void keep_unreadable(ControlledRoute& route, journal::RecordId entry, const std::vector<std::uint32_t>& recipients, const std::string& why);

  // And how it ends (control_ends.cpp).
  Task<void> take_verdicts(ControlledRoute& route, const journal::Entry& entry, const DeliveryResult& result, Wakeup& wakeup);
  void doubt(ControlledRoute& route, const journal::Entry& entry, const std::string& reply);
  void try_doubted(ControlledRoute& route);
  void regain_trust(ControlledRoute& route);
  void learn_recipients(const journal::Entry& entry, const DeliveryResult& result);
  void expire(ControlledRoute& route);
  Task<void> expire_entry(ControlledRoute& route, failover::HoldQueue::Delivery delivery);
  Task<void> tell_delay(ControlledRoute& route, failover::EntryId entry);
  using Words = std::vector<std::pair<std::uint32_t, std::string>>;  ///< recipients, and what was said about each
  static journal::OutcomeRecord outcome_record(journal::RecordId entry, journal::Outcome outcome, const Words& recipients);
  /// Records what became of recipients in flight, and takes them out of the queue.
  void settle(ControlledRoute& route, journal::RecordId entry, journal::Outcome outcome, const Words& recipients);
  /// Only takes them out of the queue: it is on record.
  void forget(ControlledRoute& route, journal::RecordId entry, const Words& recipients);
  void keep(ControlledRoute& route, journal::RecordId entry, const Words& recipients);
  void entry_may_be_done(ControlledRoute& route, failover::EntryId entry);
  /// Tells the sender about refused or expired recipients, or keeps them for the operator when it may not be told.
  Task<void> refuse(ControlledRoute& route, const journal::Entry& entry, Words recipients, journal::Outcome outcome, Wakeup& wakeup);
  /// Journals a notification, together with the outcome that it tells, if any, and has it delivered. False when the journal cannot be
  /// written now: neither is there then.
  Task<bool> notify(const journal::Entry& entry, Words recipients, failover::Action action, std::optional<journal::OutcomeRecord> outcome,
                    Wakeup& wakeup);
  bool may_be_told(const journal::Entry& entry);

  journal::Journal& journal_;
  ClientNames& names_;
  Occupancy& occupancy_;
  const Calls calls_;
  Loop loop_;
  UpstreamPool pool_;
  failover::Directory directory_{failover::DirectoryOptions()};
  std::shared_ptr<const Settings> settings_;  ///< the control loop's, once started
  Boards boards_;
  Keeper keeper_;

  std::map<std::string, std::unique_ptr<ControlledRoute>> routes_;
  std::int64_t started_us_ = journal::now_us();
  failover::ClockWatch clock_;
  std::uint64_t next_notification_ = 1;
  std::atomic<bool> is_finishing_{false};     ///< as unanswered_, changed on the control loop only
  std::atomic<std::uint64_t> unanswered_{0};  ///< deliveries whose whole content was sent, on all routes
  bool is_stopping_ = false;
  std::thread thread_;

  std::mutex known_mutex_;
  Json known_;  ///< describe_all() of that time
  std::chrono::steady_clock::time_point known_at_;
};

}  // namespace holdfast::proxy
