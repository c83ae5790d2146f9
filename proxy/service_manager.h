// What the service manager is told (systemd, with Type=notify): that Holdfast is ready, reloads or stops, that it is alive, and how things
// are. The protocol of sd_notify(3), which is a datagram: a library for it would bring five others into a program that faces the network.
#pragma once

#include <chrono>
#include <string>
#include <vector>

#include "journal/files.h"

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
  /// Sockets for the next start (kept_sockets.h). It knows those that it has already, and lets go of those that listen no more.
  void keep(std::vector<FileDescriptor> sockets);

 private:
  void tell(const std::string& assignments);
  void hand_over();
  bool send(const std::string& assignments, const FileDescriptor* first = nullptr, std::size_t count = 0) const;

  std::string socket_;
  std::string state_, shown_;
  bool is_behind_ = false;  ///< it has missed something
  std::vector<FileDescriptor> to_be_kept_;
  std::chrono::steady_clock::time_point next_sign_{};
};

}  // namespace holdfast::proxy
