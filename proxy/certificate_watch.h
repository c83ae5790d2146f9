// CertificateWatch: tells in time that a certificate which clients are shown expires. Those of the emergency mailboxes are seen by nobody
// until the day on which they must be good.
#pragma once

#include <functional>
#include <map>
#include <string>

#include "proxy/loop.h"
#include "proxy/tls.h"

namespace holdfast::proxy {

/// What is wrong with it, or will be soon; else empty.
///
/// @param now_us  microseconds since 1970
std::string caution_about(const Tls::Shown& certificate, std::int64_t now_us);

/// Not thread-safe.
class CertificateWatch {
 public:
  /// @param alert  takes what somebody should know now, in words
  explicit CertificateWatch(std::function<void(const std::string& what)> alert) : alert_(std::move(alert)) {}

  /// Looks once a minute, however often it is called, and at once when there are others. Each is told of once before it expires, and once after.
  void look(const Tls& tls);

 private:
  struct Told {
    std::int64_t expires_us = 0;
    bool is_over = false;
  };
  std::function<void(const std::string&)> alert_;
  std::map<std::string, Told> told_;  ///< by file
  const Tls* seen_ = nullptr;         ///< only compared
  Deadline next_look_{};
};

}  // namespace holdfast::proxy
