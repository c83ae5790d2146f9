// Listening sockets that outlive a restart: the service manager keeps them (systemd's FileDescriptorStoreMax), and the clients that come
// meanwhile wait in them instead of being refused.
#pragma once

#include <string>
#include <vector>

#include "journal/files.h"
#include "proxy/network.h"

namespace holdfast::proxy {

/// What the service manager has kept for this start (sd_listen_fds(3)). For the main thread.
class KeptSockets {
 public:
  /// Takes them out of the environment, LISTEN_PID and LISTEN_FDS; before there are other threads. Whatever listens nowhere is left out.
  KeptSockets();
  /// A start that has come to nothing refuses its clients: whoever waits for no one would not try another server.
  ~KeptSockets();
  KeptSockets(const KeptSockets&) = delete;
  KeptSockets& operator=(const KeptSockets&) = delete;

  bool has(const HostPort& address) const;
  /// Those that listen at the address, non-blocking.
  std::vector<FileDescriptor> use(const HostPort& address);
  /// The start has succeeded: what was not used refuses its clients from now on.
  void settle();

 private:
  struct Kept {
    std::string address;
    FileDescriptor socket;
    bool is_used = false;
  };
  std::vector<Kept> kept_;
};

/// The same socket once more, closed in children.
FileDescriptor duplicate(const FileDescriptor& socket);
/// Listens no more, whoever else has the socket: clients are refused, those that wait in it too, and the service manager lets go of it.
void stop_listening(const FileDescriptor& socket);

}  // namespace holdfast::proxy
