// The acceptor: listening sockets, one a listener and worker (SO_REUSEPORT), and the sessions that begin on them.
#pragma once

#include <event2/event_struct.h>

#include <memory>
#include <vector>

#include "journal/result.h"
#include "proxy/worker.h"

namespace holdfast::proxy {

/// Opens a listening socket, one of several at the same address. Errors name the address and what to do.
Result<FileDescriptor> listen_on(const ListenerConfig& listener);
/// Whether nobody listens at the address: the system would let another Holdfast share it, and split the mail between two journals.
Status check_free(const ListenerConfig& listener);

/// One worker's side of one listener. Belongs to the worker's thread.
class Acceptor {
 public:
  Acceptor(Worker& worker, ListenerConfig listener, FileDescriptor socket);
  /// Takes no more clients. They are refused, unless the service manager keeps the socket for the next start.
  ~Acceptor();
  Acceptor(const Acceptor&) = delete;
  Acceptor& operator=(const Acceptor&) = delete;

  const ListenerConfig& listener() const { return listener_; }
  const FileDescriptor& socket() const { return socket_; }

 private:
  static void on_connection(evutil_socket_t, short, void* acceptor);
  static void on_resume(evutil_socket_t, short, void* acceptor);
  bool accept_one();
  void pause(int reason);

  Worker& worker_;
  ListenerConfig listener_;
  FileDescriptor socket_;
  event event_, resume_;
  Deadline told_until_{};  ///< that the system lacks something
};

}  // namespace holdfast::proxy
