#include "proxy/certificate_watch.h"

#include <fmt/format.h>

#include "journal/catalog.h"
#include "proxy/log.h"

namespace holdfast::proxy {
namespace {

constexpr auto certificate_look_interval = std::chrono::minutes(1);
/// Time enough to renew it.
constexpr auto expires_soon = std::chrono::hours(14 * 24);

std::string days_or_less(std::chrono::microseconds time) {
  auto hours = std::chrono::duration_cast<std::chrono::hours>(time).count();
  return hours >= 48 ? fmt::format("{} d", hours / 24) : roughly(std::chrono::duration_cast<Duration>(time));
}

}  // namespace

std::string caution_about(const Tls::Shown& certificate, std::int64_t now_us) {
  std::chrono::microseconds left(certificate.expires_us - now_us);
  if (left > expires_soon) return "";
  if (left <= std::chrono::microseconds(0)) return fmt::format("it expired {} ago: who checks it does not connect", days_or_less(-left));
  return fmt::format("it expires in {}", days_or_less(left));
}

void CertificateWatch::look(const Tls& tls) {
  if (&tls == seen_ && Clock::now() < next_look_) return;
  seen_ = &tls;
  next_look_ = Clock::now() + certificate_look_interval;
  std::int64_t now_us = journal::now_us();
  for (const Tls::Shown& one : tls.shown()) {
    std::string caution = caution_about(one, now_us);
    bool is_over = one.expires_us <= now_us;
    Told& told = told_[one.file];
    bool is_told = told.expires_us == one.expires_us && told.is_over == is_over;
    if (caution.empty() || is_told) continue;
    told = {one.expires_us, is_over};
    log(is_over ? LogLevel::error : LogLevel::warning, "certificate",
        {{"file", one.file}, {"problem", caution}, {"remedy", "renew it; where the file is new already: SIGHUP"}});
    alert_(one.file + ": " + caution);
  }
}

}  // namespace holdfast::proxy
