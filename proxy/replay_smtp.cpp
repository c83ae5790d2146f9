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
    for (const Trip& trip : again_) tell(trip.errand->entry.id, trip.before, failure_, false);
    again_.clear();
    return failure_.empty() ? Status() : Status(Error{ErrorCode::unavailable, failure_});
  }

 private:
  /// An errand, and the item whose content it reads.
  struct Trip {
    std::unique_ptr<ReplayItem> item;
    std::unique_ptr<Errand> errand;
    std::vector<DeliveryResult::Verdict> before;  ///< of transactions that could not take all recipients
  };

  static Trip trip_for(std::unique_ptr<ReplayItem> item, std::vector<std::uint32_t> recipients, std::vector<DeliveryResult::Verdict> before) {
    Trip trip;
    trip.errand = std::make_unique<Errand>(failover::HoldQueue::Delivery{item->entry.id, std::move(recipients)}, item->entry);
    trip.errand->payload = item->payload;
    trip.errand->adds_received_line = false;
    trip.item = std::move(item);
    trip.before = std::move(before);
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
    return trip_for(std::move(item), std::move(recipients), {});
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
      come_back(std::move(trip));
      if (!failure_.empty()) break;
      trip = std::move(following);
      if (!trip.errand) trip = next();
    }
    if (--left_ == 0) loop_.stop();
  }

  void come_back(Trip trip) {
    const DeliveryResult& result = trip.errand->result;
    std::vector<DeliveryResult::Verdict> verdicts = std::move(trip.before);
    verdicts.insert(verdicts.end(), result.verdicts.begin(), result.verdicts.end());
    std::vector<std::uint32_t> rest = trip.errand->unanswered().recipients;
    if (failure_.empty()) failure_ = result.connection_failure;
    if (result.connection_failure.empty() && !rest.empty())
      again_.push_back(trip_for(std::move(trip.item), std::move(rest), std::move(verdicts)));
    else
      tell(trip.errand->entry.id, verdicts, result.connection_failure, result.may_have_arrived);
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
      if (result.served.empty() && !may_have_arrived) return;  // nothing happened
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
  std::deque<Trip> again_;  ///< to the recipients that were too many for one transaction
  std::string failure_;
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
