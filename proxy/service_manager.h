// What the service manager is told (systemd, with Type=notify): that Holdfast is ready, reloads or stops, that it is alive, and how things
// are. The protocol of sd_notify(3), which is a datagram: a library for it would bring five others into a program that faces the network.
#pragma once

#include <chrono>
#include <string>

namespace holdfast::proxy {

/// For one thread. Where nobody listens nothing happens. Nothing waits for a service manager that is slow: it is told again later.
class ServiceManager {
 public:
  /// Who listens is named by NOTIFY_SOCKET: a path, or "@" and an abstract name.
  ServiceManager();

  void ready();
  void reloading();  ///< until ready()
  void stopping();
  /// To be called again and again; when it is not, the service manager starts Holdfast anew (WatchdogSec).
  void alive();
  /// A line for `systemctl status`.
  void show(const std::string& state);

 private:
  void tell(const std::string& assignments);
  bool send(const std::string& assignments) const;

  std::string socket_;
  std::string state_, shown_;
  bool is_behind_ = false;  ///< it has missed something
  std::chrono::steady_clock::time_point next_sign_{};
};

}  // namespace holdfast::proxy
