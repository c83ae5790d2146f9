#include "proxy/retention.h"

#include <algorithm>
#include <utility>

#include "proxy/units.h"

namespace holdfast::proxy {

void Retention::look(Duration retention, Maintenance& maintenance) {
  clock_.look(journal::now_us(), std::chrono::steady_clock::now());
  if (retention == Duration(0)) note(LogLevel::warning, "");
  if (retention == Duration(0) || Clock::now() < next_ || !clock_.is_trusted_after(retention)) return;
  std::int64_t before_us = journal::now_us() - std::chrono::duration_cast<std::chrono::microseconds>(retention).count();
  auto begun = maintenance.start([this, before_us, reason = "older than journal.retention: " + to_text(retention)](const Maintenance::OnProgress&) {
    Maintenance::Outcome outcome = prune(before_us, "retention", reason);
    if (outcome)
      note(LogLevel::warning, (*outcome)["stays"].get<std::string>());
    else
      note(LogLevel::error, outcome.error().message);
    return outcome;
  });
  if (begun) next_ = Clock::now() + std::min<Duration>(retention, std::chrono::minutes(10));
}

Maintenance::Outcome Retention::prune(std::int64_t before_us, const std::string& by, const std::string& reason) {
  auto pruned = journal_.prune(before_us, by, reason);
  if (!pruned) return pruned.error();
  for (std::uint32_t number : pruned->segments) log(LogLevel::warning, "pruned", {{"segment", number}, {"by", by}, {"reason", reason}});
  for (std::uint32_t number : pruned->emptied) log(LogLevel::warning, "emptied", {{"segment", number}, {"by", by}, {"reason", reason}});
  return Json{{"segments", pruned->segments}, {"emptied", pruned->emptied}, {"stays", pruned->stays}};
}

std::string Retention::overdue() const {
  std::lock_guard lock(mutex_);
  return overdue_;
}

/// Told once, and again when it is something else.
void Retention::note(LogLevel level, const std::string& why) {
  std::lock_guard lock(mutex_);
  if (std::exchange(overdue_, why) == why || why.empty()) return;
  log(level, "retention", {{"problem", "what is older than journal.retention is still there: " + why}});
}

}  // namespace holdfast::proxy
