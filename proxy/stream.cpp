#include "proxy/stream.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <sys/uio.h>

#include <cerrno>

#include "proxy/transparency.h"

namespace holdfast::proxy {
namespace {

/// Reading pauses above this.
constexpr std::size_t input_mark = 128 * 1024;
/// Buffers larger than this are given back when they are empty: an idle connection holds no memory.
constexpr std::size_t kept_buffer = 64;

std::string tls_failure(const SSL* ssl, int result) {
  unsigned long code = ERR_get_error();
  long verified = SSL_get_verify_result(ssl);
  std::string text;
  if (verified != X509_V_OK)
    text = fmt::format("the certificate was not accepted: {}", X509_verify_cert_error_string(verified));
  else if (code != 0 && ERR_reason_error_string(code))
    text = ERR_reason_error_string(code);
  else
    text = SSL_get_error(ssl, result) == SSL_ERROR_SYSCALL ? "the peer closed the connection" : "a protocol error";
  ERR_clear_error();
  return text;
}

}  // namespace

FileDescriptor start_connect(const SocketAddress& address, const SocketAddress* source) {
  FileDescriptor socket(::socket(address.storage.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!socket) return socket;
  int one = 1;
  ::setsockopt(socket.get(), IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  ::setsockopt(socket.get(), SOL_SOCKET, SO_KEEPALIVE, &one, sizeof one);
  bool is_placed = !source || connect_from(socket.get(), *source);
  if (is_placed && (::connect(socket.get(), address.get(), address.size) == 0 || errno == EINPROGRESS)) return socket;
  int reason = errno;
  socket.reset();
  errno = reason;
  return socket;
}

Stream::Stream(FileDescriptor socket, Wakeup& owner, bool is_connecting) : socket_(std::move(socket)), owner_(&owner), is_connecting_(is_connecting) {
  event_base* base = owner.loop().base();
  event_assign(&read_event_, base, socket_.get(), EV_READ | EV_PERSIST, &Stream::on_readable, this);
  event_assign(&write_event_, base, socket_.get(), EV_WRITE | EV_PERSIST, &Stream::on_writable, this);
  if (is_connecting)
    want_write(true);
  else
    want_read(true);
}

Stream::~Stream() { close(); }

void Stream::close() {
  if (!socket_) return;
  if (ssl_ && !is_broken_ && !is_shaking_hands_) {
    SSL_shutdown(ssl_.get());
    ERR_clear_error();
  }
  want_read(false);
  want_write(false);
  ssl_.reset();
  socket_.reset();
  is_broken_ = true;
}

void Stream::end_writing() {
  if (!socket_ || is_broken_) return;
  if (ssl_) SSL_shutdown(ssl_.get());
  ERR_clear_error();
  ::shutdown(socket_.get(), SHUT_WR);
}

void Stream::want_read(bool wanted) {
  if (wanted == is_reading_) return;
  is_reading_ = wanted;
  if (wanted)
    event_add(&read_event_, nullptr);
  else
    event_del(&read_event_);
}

void Stream::want_write(bool wanted) {
  if (wanted == is_writing_) return;
  is_writing_ = wanted;
  if (wanted)
    event_add(&write_event_, nullptr);
  else
    event_del(&write_event_);
}

void Stream::fail() {
  is_broken_ = true;
  want_read(false);
  want_write(false);
  owner_->fire();
}

/// What the peer has said before it went is still to be heard: it may say why.
void Stream::fail_sending() {
  has_lost_output_ = true;
  is_broken_ = false;
  for (std::size_t had = SIZE_MAX; is_alive() && had != input().size() && input().size() <= input_mark;) {
    had = input().size();
    read_some();
  }
  fail();
}

void Stream::on_readable(evutil_socket_t, short, void* self) {
  auto* stream = static_cast<Stream*>(self);
  if (!stream->is_shaking_hands_) stream->read_some();
  stream->owner_->fire();
}

void Stream::on_writable(evutil_socket_t, short, void* self) {
  auto* stream = static_cast<Stream*>(self);
  if (stream->is_connecting_) {
    socklen_t size = sizeof stream->connect_problem_;
    ::getsockopt(stream->socket_.get(), SOL_SOCKET, SO_ERROR, &stream->connect_problem_, &size);
    stream->is_connecting_ = false;
    stream->want_write(false);
    if (stream->connect_problem_ != 0) return stream->fail();
    stream->want_read(true);
  } else if (!stream->is_shaking_hands_) {
    stream->send_output();
  }
  stream->owner_->fire();
}

void Stream::poll_input() {
  if (is_alive() && !is_connecting_) read_some();
}

/// -1: nothing now. 0: ended. Sets is_broken_ on failure.
ssize_t Stream::receive(char* out, std::size_t size) {
  if (!ssl_) {
    ssize_t got = ::recv(socket_.get(), out, size, 0);
    if (got < 0 && errno != EAGAIN && errno != EINTR) is_broken_ = true;
    return got;
  }
  ERR_clear_error();
  int got = SSL_read(ssl_.get(), out, static_cast<int>(size));
  if (got > 0) return got;
  int reason = SSL_get_error(ssl_.get(), got);
  if (reason == SSL_ERROR_WANT_READ || reason == SSL_ERROR_WANT_WRITE) return -1;
  // Many peers close without TLS's farewell; SMTP has its own end marks, so nothing can be cut off unnoticed.
  if (reason == SSL_ERROR_ZERO_RETURN || (reason == SSL_ERROR_SYSCALL && errno == 0)) return 0;
  if (reason == SSL_ERROR_SSL && ERR_GET_REASON(ERR_peek_error()) == SSL_R_UNEXPECTED_EOF_WHILE_READING) return 0;
  is_broken_ = true;
  return -1;
}

void Stream::read_some() {
  Loop& loop = owner_->loop();
  do {
    ssize_t got = receive(loop.scratch(), Loop::scratch_size);
    if (is_broken_) return fail();
    if (got < 0) return;
    if (got == 0) {
      is_ended_ = true;
      want_read(false);
      return;
    }
    if (input_start_ > 0 && input_start_ == input_.size()) {
      input_.clear();
      input_start_ = 0;
    }
    input_.append(loop.scratch(), static_cast<std::size_t>(got));
    // What TLS has decrypted already would not make the socket readable again.
  } while (ssl_ && input().size() <= input_mark && SSL_pending(ssl_.get()) > 0);
  if (input().size() > input_mark) want_read(false);
}

void Stream::consume(std::size_t size) {
  input_start_ += size;
  if (input_start_ == input_.size()) {
    if (input_.capacity() > kept_buffer)
      input_ = std::string();
    else
      input_.clear();
    input_start_ = 0;
  } else if (input_start_ > input_mark) {
    input_.erase(0, input_start_);
    input_start_ = 0;
  }
  if (is_reading_ || is_connecting_ || !is_alive() || input().size() > input_mark / 2) return;
  want_read(true);
  if (ssl_ && SSL_pending(ssl_.get()) > 0) read_some();
}

/// Bytes taken, 0 for none now. Sets is_broken_ on failure.
ssize_t Stream::send_some(std::string_view bytes) {
  if (!ssl_) {
    ssize_t sent = ::send(socket_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (sent >= 0) return sent;
    if (errno != EAGAIN && errno != EINTR) is_broken_ = true;
    return 0;
  }
  ERR_clear_error();
  int sent = SSL_write(ssl_.get(), bytes.data(), static_cast<int>(std::min<std::size_t>(bytes.size(), 1 << 20)));
  if (sent > 0) return sent;
  int reason = SSL_get_error(ssl_.get(), sent);
  if (reason != SSL_ERROR_WANT_WRITE && reason != SSL_ERROR_WANT_READ) is_broken_ = true;
  return 0;
}

/// True when everything is sent.
bool Stream::send_output() {
  while (output_start_ < output_.size()) {
    ssize_t sent = send_some(std::string_view(output_).substr(output_start_));
    if (is_broken_) return fail_sending(), false;
    if (sent == 0) {
      want_write(true);
      return false;
    }
    output_start_ += static_cast<std::size_t>(sent);
  }
  if (output_.capacity() > kept_buffer)
    output_ = std::string();
  else
    output_.clear();
  output_start_ = 0;
  want_write(false);
  return true;
}

void Stream::flush(std::string_view more, std::string_view still_more) {
  if (is_broken_ || is_connecting_) return;
  if (ssl_ || is_writing_) {
    // One record for all, and the order kept.
    output_.append(more).append(still_more);
    if (!is_writing_ && !output_.empty()) send_output();
    return;
  }
  std::string_view own = std::string_view(output_).substr(output_start_);
  if (more.empty() && still_more.empty()) {
    if (!own.empty()) send_output();
    return;
  }
  iovec pieces[3] = {{const_cast<char*>(own.data()), own.size()},
                     {const_cast<char*>(more.data()), more.size()},
                     {const_cast<char*>(still_more.data()), still_more.size()}};
  msghdr message{};
  message.msg_iov = pieces;
  message.msg_iovlen = 3;
  ssize_t sent = ::sendmsg(socket_.get(), &message, MSG_NOSIGNAL);
  if (sent < 0 && errno != EAGAIN && errno != EINTR) return fail_sending();
  auto left = static_cast<std::size_t>(std::max<ssize_t>(sent, 0));
  std::string rest;
  for (std::string_view piece : {own, more, still_more}) {
    std::size_t gone = std::min(left, piece.size());
    left -= gone;
    rest.append(piece.substr(gone));
  }
  output_ = std::move(rest);
  output_start_ = 0;
  if (!output_.empty()) want_write(true);
}

/// False when the peer does not take all that was written until then. Nothing is read meanwhile.
Task<bool> Stream::drain(Deadline deadline) {
  if (unsent() == 0) co_return !is_broken_;
  want_read(false);
  bool in_time = true;
  while (in_time && unsent() > 0 && !is_broken_) in_time = co_await owner_->wait(deadline);
  if (!is_broken_) want_read(true);
  co_return in_time && !is_broken_;
}

Task<std::string> Stream::handshake(SSL* ssl, bool as_server, Deadline deadline) {
  std::unique_ptr<SSL, FreeSsl> own(ssl);
  bool is_drained = co_await drain(deadline);
  if (!is_drained) {
    fail();
    co_return "the peer did not take what was said before it";
  }
  ssl_ = std::move(own);
  SSL_set_fd(ssl, socket_.get());
  if (as_server)
    SSL_set_accept_state(ssl);
  else
    SSL_set_connect_state(ssl);
  is_shaking_hands_ = true;
  std::string failure;
  for (;;) {
    ERR_clear_error();
    int result = SSL_do_handshake(ssl);
    if (result == 1) break;
    int reason = SSL_get_error(ssl, result);
    if (reason != SSL_ERROR_WANT_READ && reason != SSL_ERROR_WANT_WRITE) {
      failure = tls_failure(ssl, result);
      break;
    }
    want_write(reason == SSL_ERROR_WANT_WRITE);
    bool in_time = co_await owner_->wait(deadline);
    if (!in_time || is_broken_) {
      failure = in_time ? "the connection was closed" : "it took too long";
      break;
    }
  }
  is_shaking_hands_ = false;
  want_write(false);
  if (!failure.empty())
    fail();
  else if (SSL_pending(ssl) > 0)
    read_some();
  co_return failure;
}

std::string Stream::tls_description() const {
  if (!ssl_) return {};
  return fmt::format("{} {}", SSL_get_version(ssl_.get()), SSL_get_cipher_name(ssl_.get()));
}

}  // namespace holdfast::proxy
