// A stream: one non-blocking connection with its buffers, plain or TLS.
//
// Bytes that arrive gather in input(), up to a mark beyond which reading pauses; bytes to send gather by write() and go out
// with flush(), the rest whenever the peer takes it. Every event fires the wakeup of the coroutine that owns the stream.
#pragma once

#include <event2/event_struct.h>
#include <openssl/ssl.h>

#include <memory>
#include <string>
#include <string_view>

#include "journal/files.h"
#include "proxy/loop.h"
#include "proxy/network.h"
#include "proxy/task.h"

namespace holdfast::proxy {

class Stream {
 public:
  /// Takes a connected, or connecting, non-blocking socket.
  Stream(FileDescriptor socket, Wakeup& owner, bool is_connecting = false);
  ~Stream();
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;

  /// Who is woken from now on.
  void give_to(Wakeup& owner) { owner_ = &owner; }

  // Reading.
  std::string_view input() const { return std::string_view(input_).substr(input_start_); }
  void consume(std::size_t size);
  /// The peer has ended its side; input() may still hold its last bytes.
  bool is_ended() const { return is_ended_; }
  /// The connection is lost: reset, or a TLS failure.
  bool is_broken() const { return is_broken_; }
  bool is_alive() const { return !is_ended_ && !is_broken_; }
  /// It broke while something was being sent, which the peer has not got whole.
  bool has_lost_output() const { return has_lost_output_; }
  bool is_connecting() const { return is_connecting_; }
  /// Why the system could not connect, as errno has it; 0 when it could.
  int connect_problem() const { return connect_problem_; }
  /// Looks for bytes now instead of waiting for the loop to tell.
  void poll_input();

  // Writing.
  void write(std::string_view bytes) { output_.append(bytes); }
  /// Sends what was written, then more, without copying more unless it must wait.
  void flush(std::string_view more = {}, std::string_view still_more = {});
  /// Bytes written that the peer has not taken.
  std::size_t unsent() const { return output_.size() - output_start_; }
  static constexpr std::size_t flood_mark = 128 * 1024;
  bool is_flooded() const { return unsent() > flood_mark; }

  /// Becomes TLS, when all that was written has been sent in plain. Bytes that came before and were not consumed are the caller's mistake: it must refuse them first.
  /// Returns an empty text, or why the handshake failed.
  Task<std::string> handshake(SSL* ssl, bool as_server, Deadline deadline);
  bool is_tls() const { return ssl_ != nullptr; }
  /// "TLSv1.3 TLS_AES_256_GCM_SHA384", or nothing.
  std::string tls_description() const;

  /// Tells the peer that nothing more will come. Reading goes on.
  void end_writing();
  /// Sends what can be sent at once, with TLS's farewell, and closes. The stream is broken afterwards.
  void close();

 private:
  struct FreeSsl {
    void operator()(SSL* ssl) const { SSL_free(ssl); }
  };
  static void on_readable(evutil_socket_t, short, void* stream);
  static void on_writable(evutil_socket_t, short, void* stream);
  void read_some();
  ssize_t receive(char* out, std::size_t size);
  Task<bool> drain(Deadline deadline);
  bool send_output();
  ssize_t send_some(std::string_view bytes);
  void want_read(bool wanted);
  void want_write(bool wanted);
  void fail();
  void fail_sending();

  FileDescriptor socket_;
  Wakeup* owner_;
  std::string input_, output_;
  std::size_t input_start_ = 0, output_start_ = 0;
  int connect_problem_ = 0;
  bool is_connecting_ = false, is_ended_ = false, is_broken_ = false, has_lost_output_ = false;
  bool is_reading_ = false, is_writing_ = false, is_shaking_hands_ = false;
  std::unique_ptr<SSL, FreeSsl> ssl_;
  event read_event_, write_event_;
};

/// Starts to connect. Returns nothing when the system refuses at once; errno says why.
///
/// @param source  from where, which may be an address of any machine (transparency.h); null for the system's choice
FileDescriptor start_connect(const SocketAddress& address, const SocketAddress* source = nullptr);

}  // namespace holdfast::proxy
