// Replays over SMTP (RFC 5321) or LMTP (RFC 2033), by several couriers at once.
#include <fmt/format.h>

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
    return failure_.empty() ? Status() : Status(Error{ErrorCode::unavailable, failure_});
  }

 private:
  /// An errand, and the item whose content it reads.
  struct Trip {
    std::unique_ptr<ReplayItem> item;
    std::unique_ptr<Errand> errand;
  };

  Trip next() {
    Trip trip;
    if (!failure_.empty()) return trip;
    trip.item = job_->next();
    if (!trip.item) return trip;
    trip.errand = std::make_unique<Errand>(
        failover::HoldQueue::Delivery{trip.item->entry.id, trip.item->recipients}, trip.item->entry);
    trip.errand->payload = trip.item->payload;
    trip.errand->adds_received_line = false;
    return trip;
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
      tell(*trip.errand);
      if (!failure_.empty()) break;
      trip = std::move(following);
      if (!trip.errand) trip = next();
    }
    if (--left_ == 0) loop_.stop();
  }

  void tell(const Errand& errand) {
    ReplayResult result{errand.entry.id, ReplayResult::State::sent, {}, {}};
    for (const DeliveryResult::Verdict& verdict : errand.result.verdicts) {
      if (verdict.reply.is_positive())
        result.served.push_back(verdict.recipient);
      else
        result.state = ReplayResult::State::refused;
      if (verdict.reply.is_permanent()) result.refused.push_back(verdict.recipient);
      if (!verdict.reply.is_positive() || result.detail.empty()) result.detail = verdict.reply.summary();
    }
    if (!errand.result.connection_failure.empty()) {
      if (failure_.empty()) failure_ = errand.result.connection_failure;
      if (result.served.empty() && !errand.result.may_have_arrived) return;  // nothing happened
      result.state = ReplayResult::State::failed;
      result.detail = errand.result.connection_failure +
                      (errand.result.may_have_arrived ? "; the target may have taken it" : "");
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
  std::string failure_;
};

}  // namespace

Result<std::unique_ptr<ReplayTarget>> open_smtp_target(const std::string& scheme, const HostPort& host,
                                                       const ReplayOptions& options, const Config& config) {
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
