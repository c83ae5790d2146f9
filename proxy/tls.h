// TLS contexts: certificates toward clients, chosen by the name they ask for, and trust toward primaries.
//
// Immutable once made, so sessions of all threads share them; a reload makes new ones.
#pragma once

#include <openssl/ssl.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "journal/result.h"
#include "proxy/config.h"

namespace holdfast::proxy {

class Tls {
 public:
  /// Loads all certificates and keys. Errors name the file and what is wrong with it.
  static Result<std::unique_ptr<const Tls>> load(const TlsConfig& config);

  /// A certificate that clients are shown.
  struct Shown {
    std::string file;
    std::int64_t expires_us;  ///< microseconds since 1970
  };
  const std::vector<Shown>& shown() const { return shown_; }

  /// A new connection's state, for Stream::handshake, which takes ownership. Null only without memory.
  SSL* new_server() const;
  /// name is sent as SNI (unless it is an IP address) and, for UpstreamTls::verify, must be in the certificate.
  SSL* new_client(UpstreamTls mode, const std::string& name) const;

 private:
  struct Free {
    void operator()(SSL_CTX* context) const { SSL_CTX_free(context); }
  };
  using Context = std::unique_ptr<SSL_CTX, Free>;
  struct Certificate {
    Context context;
    std::vector<std::string> names;  ///< in lower case; "*.example.org" stands for one label more
  };
  static int on_server_name(SSL* ssl, int* alert, void* self);
  SSL_CTX* find(std::string_view name) const;

  std::vector<Certificate> certificates_;
  std::vector<Shown> shown_;
  Context client_;
};

}  // namespace holdfast::proxy
