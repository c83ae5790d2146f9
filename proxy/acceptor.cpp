#include "proxy/acceptor.h"

#include <fmt/format.h>
#include <netinet/tcp.h>

#include <cerrno>
#include <cstring>

#include "proxy/imap_session.h"
#include "proxy/log.h"
#include "proxy/reply.h"
#include "proxy/session.h"
#include "proxy/submission_session.h"

namespace holdfast::proxy {
namespace {

constexpr int backlog = 1024;
constexpr int accepts_a_turn = 32;

}  // namespace

namespace {

Result<FileDescriptor> bind_to(const ListenerConfig& listener, bool shares_port) {
  std::string name = to_string(listener.address);
  SocketAddress address = *to_socket_address(listener.address);
  auto failed = [&](const char* what) {
    int reason = errno;
    std::string remedy = reason == EADDRINUSE      ? "; another program listens there: stop it, or choose another address"
                         : reason == EACCES        ? "; ports below 1024 need root or CAP_NET_BIND_SERVICE"
                         : reason == EADDRNOTAVAIL ? "; this machine has no such address"
                                                   : "";
    return Error{reason == EACCES ? ErrorCode::permission : ErrorCode::unavailable,
                 fmt::format("{}: cannot {}: {}{}", name, what, std::strerror(reason), remedy)};
  };
  FileDescriptor socket(::socket(address.storage.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!socket) return failed("make a socket");
  int one = 1;
  ::setsockopt(socket.get(), SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
  if (shares_port) ::setsockopt(socket.get(), SOL_SOCKET, SO_REUSEPORT, &one, sizeof one);
  // Accepted sockets inherit both.
  ::setsockopt(socket.get(), IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  ::setsockopt(socket.get(), SOL_SOCKET, SO_KEEPALIVE, &one, sizeof one);
  if (::bind(socket.get(), address.get(), address.size) != 0) return failed("listen");
  if (shares_port && ::listen(socket.get(), backlog) != 0) return failed("listen");
  return socket;
}

}  // namespace

Result<FileDescriptor> listen_on(const ListenerConfig& listener) { return bind_to(listener, true); }

Status check_free(const ListenerConfig& listener) {
  Result<FileDescriptor> socket = bind_to(listener, false);
  return socket ? Status() : socket.error();
}

Acceptor::Acceptor(Worker& worker, ListenerConfig listener, FileDescriptor socket)
    : worker_(worker), listener_(std::move(listener)), socket_(std::move(socket)) {
  event_assign(&event_, worker.loop.base(), socket_.get(), EV_READ | EV_PERSIST, &Acceptor::on_connection, this);
  event_assign(&resume_, worker.loop.base(), -1, 0, &Acceptor::on_resume, this);
  event_add(&event_, nullptr);
}

Acceptor::~Acceptor() {
  event_del(&event_);
  event_del(&resume_);
}

void Acceptor::on_connection(evutil_socket_t, short, void* self) {
  auto* acceptor = static_cast<Acceptor*>(self);
  for (int i = 0; i < accepts_a_turn; ++i)
    if (!acceptor->accept_one()) return;
}

void Acceptor::on_resume(evutil_socket_t, short, void* self) { event_add(&static_cast<Acceptor*>(self)->event_, nullptr); }

/// The system has no room for another connection: they wait in the backlog. Looking again at once would only burn the processor.
void Acceptor::pause(int reason) {
  event_del(&event_);
  timeval a_moment{0, 100000};
  event_add(&resume_, &a_moment);
  if (worker_.loop.now() < told_until_) return;
  told_until_ = worker_.loop.now() + std::chrono::minutes(1);
  log(LogLevel::error, "accept",
      {{"address", to_string(listener_.address)}, {"problem", std::strerror(reason)}, {"remedy", "raise LimitNOFILE or lower limits.connections"}});
}

bool Acceptor::accept_one() {
  SocketAddress peer, own;
  peer.size = own.size = sizeof peer.storage;
  FileDescriptor socket(::accept4(socket_.get(), peer.get(), &peer.size, SOCK_NONBLOCK | SOCK_CLOEXEC));
  if (!socket) {
    if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) pause(errno);
    return false;
  }
  ::getsockname(socket.get(), own.get(), &own.size);
  const Settings& settings = *worker_.settings;
  Endpoint client = to_endpoint(peer);
  auto refuse = [&](const char* reason, const std::string& words) {
    log(LogLevel::warning, "refused", {{"client", to_string(client)}, {"reason", reason}});
    std::string reply =
        listener_.role == Role::imap ? "* BYE " + words + "\r\n" : own_reply(421, fmt::format("4.3.2 {} Error: {}", settings.config.hostname, words));
    if (listener_.tls != ListenerTls::implicit) [[maybe_unused]]
      ssize_t sent = ::send(socket.get(), reply.data(), reply.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    return true;
  };
  ConnectionCounts& connections = worker_.shared.connections;
  if (!connections.enter(settings.config.limits.connections)) return refuse("limits.connections is reached", "too many connections");
  worker_.shared.accepted.fetch_add(1, std::memory_order_relaxed);
  bool is_submission = listener_.role == Role::submission && worker_.mailboxes && asks_accounts(listener_, settings, worker_.shared.control);
  if (listener_.role == Role::imap || is_submission) {
    auto place = connections.place_for(client.address, settings.config.limits.per_client);
    if (!place) {
      connections.leave();
      return refuse("limits.per_client is reached", "too many connections from " + client.address);
    }
    if (is_submission)
      SubmissionSession::run(
          std::make_unique<SubmissionSession>(worker_, *worker_.mailboxes, listener_, std::move(socket), peer, own, std::move(place)))
          .spawn();
    else
      ImapSession::run(std::make_unique<ImapSession>(worker_, *worker_.mailboxes, listener_, std::move(socket), peer, std::move(place))).spawn();
    return true;
  }
  // A client behind a balancer is counted once its address is known.
  Session::run(std::make_unique<Session>(worker_, listener_, std::move(socket), peer, own)).spawn();
  return true;
}

}  // namespace holdfast::proxy
