// Ed25519 signatures (RFC 8032) for heads and manifests. The private key is a PEM file beside the journal;
// the public one is for whoever verifies.
#pragma once

#include <openssl/evp.h>

#include <memory>
#include <string>
#include <string_view>

#include "journal/crypto.h"
#include "journal/result.h"

namespace holdfast::journal {

struct FreePkey {
  void operator()(EVP_PKEY* key) const { EVP_PKEY_free(key); }
};

/// Who can check signatures. Thread-safe.
class PublicKey {
 public:
  /// Errors: not_found, corrupt (no Ed25519 key in it).
  static Result<PublicKey> read(const std::string& pem_path);
  /// From 64 hexadecimal digits, as heads carry it. Error: corrupt.
  static Result<PublicKey> from_hex(std::string_view digits);
  std::string hex() const;
  bool verifies(std::string_view text, std::string_view signature) const;

 private:
  friend class SigningKey;
  explicit PublicKey(EVP_PKEY* key) : key_(key, FreePkey()) {}
  std::shared_ptr<EVP_PKEY> key_;
};

/// Who can sign. Thread-safe.
class SigningKey {
 public:
  /// The key that belongs to the key ring's base key; it is the same for a journal's life, and after it was restored
  /// from a backup. Writes signing.pub where it is missing. Errors: no_space, io.
  static Result<SigningKey> open(const std::string& journal, const Key& base);
  static std::string public_path(const std::string& journal) { return journal + "/signing.pub"; }
  std::string sign(std::string_view text) const;  ///< 64 bytes
  const PublicKey& public_key() const { return public_; }

 private:
  explicit SigningKey(EVP_PKEY* key) : public_(key) {}
  PublicKey public_;
};

}  // namespace holdfast::journal
