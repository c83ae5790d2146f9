// Replays over SMTP (RFC 5321) or LMTP (RFC 2033), by several couriers at once.
#include <fmt/format.h>

#include <deque>

#include "proxy/loop.h"
#include "proxy/replay.h"
#include "proxy/resolver.h"
#include "proxy/settings.h"

namespace holdfast::proxy {
namespace {

class SmtpTarget : public ReplayTarget {
 public:
  SmtpTarget(std::shared_ptr<const Settings> settings, std::uint64_t couriers)
      : settings_(std::move(settings)), couriers_(couriers), pool_(loop_, resolver_, occupancy_) {}

  Status run(ReplayJob& job) override {
    std::vector<std::string> hosts;
    for (const HostPort& host : settings_->config.routes[0].upstreams) hosts.push_back(host.host);
    resolver_.watch(hosts, std::chrono::seconds(30));
    job_ = &job;
    left_ = couriers_;
    for (std::uint64_t i = 0; i < couriers_; ++i) work().spawn();
    if (left_ > 0) loop_.run();
    pool_.sweep(true);
    for (const Trip& trip : again_)
      if (!trip.before.empty()) tell(trip.errand->entry.id, trip.before, failure_, false);
    again_.clear();
    return failure_.empty() ? Status() : Status(Error{ErrorCode::unavailable, failure_});
  }

 private:
  /// An errand, and the item whose content it reads.
  struct Trip {
    std::unique_ptr<ReplayItem> item;
    std::unique_ptr<Errand> errand;
    std::vector<DeliveryResult::Verdict> before = {};  ///< of transactions that could not take all recipients
    bool was_interrupted = false;                      ///< the connection was there and was lost on the way, which may be chance
  };
  /// So many entries one after the other that lose their connection tell of the target, fewer of themselves.
  static constexpr std::uint64_t most_lost_in_a_row = 10;

  static Trip trip_for(std::unique_ptr<ReplayItem> item, std::vector<std::uint32_t> recipients) {
    Trip trip;
    trip.errand = std::make_unique<Errand>(failover::HoldQueue::Delivery{item->entry.id, std::move(recipients)}, item->entry);
    trip.errand->payload = item->payload;
    trip.errand->adds_received_line = false;
    trip.item = std::move(item);
    return trip;
  }

  Trip next() {
    Trip trip;
    if (!failure_.empty()) return trip;
    if (!again_.empty()) {
      trip = std::move(again_.front());
      again_.pop_front();
      return trip;
    }
    std::unique_ptr<ReplayItem> item = job_->next();
    if (!item) return trip;
    std::vector<std::uint32_t> recipients = item->recipients;
    return trip_for(std::move(item), std::move(recipients));
  }

  /// What is still to be done of it comes next, on whichever connection.
  void again(Trip trip, std::vector<std::uint32_t> recipients) {
    Trip rest = trip_for(std::move(trip.item), std::move(recipients));
    rest.before = std::move(trip.before);
    rest.was_interrupted = trip.was_interrupted;
    again_.push_front(std::move(rest));
  }

  Task<void> work() {
    Wakeup wakeup(loop_);
    Courier courier(pool_, loop_, wakeup);
    const Opening opening{settings_, 0, {}, Deadline::max()};
    Trip trip = next();
    while (trip.errand) {
      Trip following;
      Courier::Occasions occasions;
      occasions.next = [&] {
        following = next();
        return following.errand.get();
      };
      co_await courier.deliver(*trip.errand, opening, occasions);
      bool goes_on = trip.errand->result.connection_failure.empty() && failure_.empty();
      if (following.errand && !goes_on) {
        // Its envelope went out, and nothing more.
        std::vector<std::uint32_t> recipients = following.errand->delivery.recipients;
        again(std::exchange(following, {}), std::move(recipients));
      }
      come_back(std::move(trip));
      trip = following.errand ? std::move(following) : next();
    }
    if (--left_ == 0) loop_.stop();
  }

  void come_back(Trip trip) {
    const DeliveryResult& result = trip.errand->result;
    std::vector<std::uint32_t> rest = trip.errand->unanswered().recipients;
    trip.before.insert(trip.before.end(), result.verdicts.begin(), result.verdicts.end());
    bool is_lost = result.was_interrupted && (trip.was_interrupted || result.may_have_arrived);
    trip.was_interrupted |= result.was_interrupted;
    bool is_unreachable = !result.connection_failure.empty() && !result.was_interrupted;
    if (is_unreachable && failure_.empty()) failure_ = result.connection_failure;
    if (!rest.empty() && !is_lost) return again(std::move(trip), std::move(rest));
    lost_in_a_row_ = is_lost ? lost_in_a_row_ + 1 : 0;
    if (lost_in_a_row_ >= most_lost_in_a_row && failure_.empty()) failure_ = result.connection_failure;
    tell(trip.errand->entry.id, trip.before, result.connection_failure, result.may_have_arrived);
  }

  /// @param failure  of the connection, before there was a verdict for everybody; else empty
  void tell(journal::RecordId id, const std::vector<DeliveryResult::Verdict>& verdicts, const std::string& failure, bool may_have_arrived) {
    ReplayResult result{id, ReplayResult::State::sent, {}, {}};
    for (const DeliveryResult::Verdict& verdict : verdicts) {
      if (verdict.reply.is_positive())
        result.served.push_back(verdict.recipient);
      else
        result.state = ReplayResult::State::refused;
      if (verdict.reply.is_permanent()) result.refused.push_back(verdict.recipient);
      if (!verdict.reply.is_positive() || result.detail.empty()) result.detail = verdict.reply.summary();
    }
    if (!failure.empty()) {
      result.state = ReplayResult::State::failed;
      result.detail = failure + (may_have_arrived ? "; the target may have taken it" : "");
    }
    job_->done(result);
  }

  std::shared_ptr<const Settings> settings_;
  std::uint64_t couriers_, left_ = 0;
  Resolver resolver_;
  Occupancy occupancy_;
  Loop loop_;
  UpstreamPool pool_;
  ReplayJob* job_ = nullptr;
  std::deque<Trip> again_;  ///< to the recipients that were too many for one transaction, or whose connection was lost
  std::uint64_t lost_in_a_row_ = 0;
  std::string failure_;  ///< the target takes no more
};

}  // namespace

Result<std::unique_ptr<ReplayTarget>> open_smtp_target(const std::string& scheme, const HostPort& host, const ReplayOptions& options,
                                                       const Config& config) {
  RouteConfig route;
  route.name = "replay";
  route.upstreams = {host};
  route.protocol = scheme == "lmtp" ? Protocol::lmtp : Protocol::smtp;
  route.is_tls_from_start = scheme == "smtps";
  route.tls = scheme == "smtps" ? UpstreamTls::verify : UpstreamTls::opportunistic;
  Config own;
  own.hostname = config.hostname;
  own.routes = {route};
  own.limits = config.limits;
  own.reuse.transactions = UINT64_MAX;
  own.tls.ca_file = config.tls.ca_file;
  auto tls = Tls::load(own.tls);
  if (!tls) return tls.error();
  auto settings = std::shared_ptr<const Settings>(new Settings{std::move(own), std::move(*tls)});
  return std::unique_ptr<ReplayTarget>(std::make_unique<SmtpTarget>(settings, options.concurrency));
}

}  // namespace holdfast::proxy
