#include "proxy/tls.h"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <openssl/err.h>
#include <openssl/rand.h>
#include <openssl/x509v3.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <ctime>

#include "journal/catalog.h"

namespace holdfast::proxy {
namespace {

std::string last_problem() {
  unsigned long code = ERR_peek_last_error();
  ERR_clear_error();
  const char* reason = ERR_reason_error_string(code);
  return reason ? reason : "unknown reason";
}

/// Why a file is of no use: that it cannot be read, or what OpenSSL says.
std::string problem_with(const std::string& file) {
  std::string said = last_problem();
  if (::access(file.c_str(), R_OK) == 0) return said;
  bool is_ours = errno == EACCES;
  return std::string(std::strerror(errno)) + (is_ours ? ": the user that runs Holdfast must be able to read it" : "");
}

std::int64_t end_of(const X509* certificate) {
  std::tm end{};
  if (ASN1_TIME_to_tm(X509_get0_notAfter(certificate), &end) != 1) return 0;
  return static_cast<std::int64_t>(::timegm(&end)) * 1'000'000;
}

int version_of(const std::string& text) { return text == "1.3" ? TLS1_3_VERSION : TLS1_2_VERSION; }

/// The names in a certificate: its DNS alternative names, or else its common name.
std::vector<std::string> names_in(X509* certificate) {
  std::vector<std::string> names;
  auto* alternatives = static_cast<GENERAL_NAMES*>(X509_get_ext_d2i(certificate, NID_subject_alt_name, nullptr, nullptr));
  for (int i = 0; alternatives && i < sk_GENERAL_NAME_num(alternatives); ++i) {
    const GENERAL_NAME* name = sk_GENERAL_NAME_value(alternatives, i);
    if (name->type != GEN_DNS) continue;
    const auto* text = reinterpret_cast<const char*>(ASN1_STRING_get0_data(name->d.dNSName));
    names.push_back(journal::normalise({text, static_cast<std::size_t>(ASN1_STRING_length(name->d.dNSName))}));
  }
  GENERAL_NAMES_free(alternatives);
  char common[256];
  if (names.empty() && X509_NAME_get_text_by_NID(X509_get_subject_name(certificate), NID_commonName, common, sizeof common) > 0)
    names.push_back(journal::normalise(common));
  return names;
}

/// The same for all contexts and across reloads, so that clients can resume whichever they meet. New with each start.
void share_ticket_keys(SSL_CTX* context) {
  static const std::array<unsigned char, 80> keys = [] {
    std::array<unsigned char, 80> random;
    RAND_bytes(random.data(), random.size());
    return random;
  }();
  SSL_CTX_set_tlsext_ticket_keys(context, const_cast<unsigned char*>(keys.data()), keys.size());
}

void set_common(SSL_CTX* context, const TlsConfig& config) {
  SSL_CTX_set_min_proto_version(context, version_of(config.minimum_version));
  SSL_CTX_set_mode(context, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
  SSL_CTX_set_options(context, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION);
  SSL_CTX_set_read_ahead(context, 0);
}

}  // namespace

Result<std::unique_ptr<const Tls>> Tls::load(const TlsConfig& config) {
  auto tls = std::make_unique<Tls>();
  for (const CertificateConfig& one : config.certificates) {
    Context context(SSL_CTX_new(TLS_server_method()));
    set_common(context.get(), config);
    SSL_CTX_set_options(context.get(), SSL_OP_CIPHER_SERVER_PREFERENCE);
    if (SSL_CTX_use_certificate_chain_file(context.get(), one.certificate.c_str()) != 1)
      return Error{ErrorCode::invalid, fmt::format("{}: cannot use it as a certificate: {}", one.certificate, problem_with(one.certificate))};
    if (SSL_CTX_use_PrivateKey_file(context.get(), one.key.c_str(), SSL_FILETYPE_PEM) != 1)
      return Error{ErrorCode::invalid, fmt::format("{}: cannot use it as a private key: {}", one.key, problem_with(one.key))};
    if (SSL_CTX_check_private_key(context.get()) != 1)
      return Error{ErrorCode::invalid, fmt::format("{}: this key does not belong to the certificate {}", one.key, one.certificate)};
    static constexpr unsigned char session_context[] = "holdfast";
    SSL_CTX_set_session_id_context(context.get(), session_context, sizeof session_context);
    share_ticket_keys(context.get());
    std::vector<std::string> names = names_in(SSL_CTX_get0_certificate(context.get()));
    tls->shown_.push_back({one.certificate, end_of(SSL_CTX_get0_certificate(context.get()))});
    tls->certificates_.push_back({std::move(context), std::move(names)});
  }
  if (!tls->certificates_.empty()) {
    SSL_CTX_set_tlsext_servername_callback(tls->certificates_[0].context.get(), &Tls::on_server_name);
    SSL_CTX_set_tlsext_servername_arg(tls->certificates_[0].context.get(), tls.get());
  }
  tls->client_.reset(SSL_CTX_new(TLS_client_method()));
  set_common(tls->client_.get(), config);
  bool has_trust = config.ca_file.empty() ? SSL_CTX_set_default_verify_paths(tls->client_.get()) == 1
                                          : SSL_CTX_load_verify_locations(tls->client_.get(), config.ca_file.c_str(), nullptr) == 1;
  if (!has_trust)
    return Error{ErrorCode::invalid,
                 fmt::format("{}: cannot use it as a list of trusted certificates: {}", config.ca_file, problem_with(config.ca_file))};
  return std::unique_ptr<const Tls>(std::move(tls));
}

SSL_CTX* Tls::find(std::string_view name) const {
  std::string wanted = journal::normalise(name);
  std::size_t dot = wanted.find('.');
  std::string wildcard = dot == std::string::npos ? "" : "*" + wanted.substr(dot);
  for (const Certificate& certificate : certificates_)
    for (const std::string& one : certificate.names)
      if (one == wanted || one == wildcard) return certificate.context.get();
  return nullptr;
}

int Tls::on_server_name(SSL* ssl, int*, void* self) {
  const char* name = SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name);
  if (!name) return SSL_TLSEXT_ERR_OK;
  // A client that asks for an unknown name gets the first certificate: mail servers check it rarely, and mail must flow.
  if (SSL_CTX* context = static_cast<const Tls*>(self)->find(name)) SSL_set_SSL_CTX(ssl, context);
  return SSL_TLSEXT_ERR_OK;
}

SSL* Tls::new_server() const { return certificates_.empty() ? nullptr : SSL_new(certificates_[0].context.get()); }

SSL* Tls::new_client(UpstreamTls mode, const std::string& name) const {
  SSL* ssl = SSL_new(client_.get());
  if (!ssl) return nullptr;
  unsigned char bytes[16];
  bool is_address = inet_pton(AF_INET, name.c_str(), bytes) == 1 || inet_pton(AF_INET6, name.c_str(), bytes) == 1;
  if (!is_address) SSL_set_tlsext_host_name(ssl, name.c_str());
  if (mode == UpstreamTls::verify) {
    SSL_set_verify(ssl, SSL_VERIFY_PEER, nullptr);
    if (is_address)
      X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl), name.c_str());
    else
      SSL_set1_host(ssl, name.c_str());
  }
  return ssl;
}

}  // namespace holdfast::proxy
