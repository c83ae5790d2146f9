// The few cryptographic operations that the journal is made of: SHA-256, AES-256-GCM, HKDF, keyed hashes, random bytes.
//
// All of them are OpenSSL's; this file only gives them types. A failure of a primitive that cannot fail for
// reasons of input (no memory, a broken random source) ends the process: there is no safe way on.
#pragma once

#include <openssl/evp.h>

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

namespace holdfast::journal {

using Hash = std::array<std::uint8_t, 32>;  ///< a SHA-256
using Key = std::array<std::uint8_t, 32>;   ///< an AES-256 or HMAC key

inline constexpr std::size_t nonce_size = 12;
inline constexpr std::size_t tag_size = 16;
/// What sealing adds to a plain text: the nonce before it, the tag behind it.
inline constexpr std::size_t seal_overhead = nonce_size + tag_size;

inline std::string_view view(const std::array<std::uint8_t, 32>& bytes) { return {reinterpret_cast<const char*>(bytes.data()), bytes.size()}; }

/// SHA-256 over bytes that come in pieces. Not thread-safe; movable.
class Sha256 {
 public:
  Sha256();
  void update(std::string_view bytes);
  Hash finish();  ///< call once, last

 private:
  struct Free {
    void operator()(EVP_MD_CTX* context) const { EVP_MD_CTX_free(context); }
  };
  std::unique_ptr<EVP_MD_CTX, Free> context_;
};

/// SHA-256 of the concatenation of a and b.
Hash sha256(std::string_view a, std::string_view b = {});

/// Fills memory with cryptographically strong random bytes.
void random_bytes(void* out, std::size_t size);
Key random_key();

/// HKDF-SHA-256 (RFC 5869) of a key with a label; each label gives an independent key.
Key derive_key(const Key& key, std::string_view label);

/// HMAC-SHA-256 under one key, set up once. Not thread-safe; movable.
class KeyedHash {
 public:
  explicit KeyedHash(const Key& key);
  Hash operator()(std::string_view bytes);

 private:
  struct Free {
    void operator()(EVP_MAC_CTX* context) const { EVP_MAC_CTX_free(context); }
  };
  std::unique_ptr<EVP_MAC_CTX, Free> context_;
};

/// Appends nonce, cipher text and tag of plain to out (AES-256-GCM, a fresh random nonce). Thread-safe.
void seal(const Key& key, std::string_view plain, std::string_view associated, std::string& out);

/// Opens what seal() made. Returns nothing when the key, the associated data or any bit is wrong. Thread-safe.
std::optional<std::string> open_sealed(const Key& key, std::string_view sealed, std::string_view associated);

/// Lower-case hexadecimal.
std::string to_hex(std::string_view bytes);

/// The bytes of an even number of hexadecimal digits, or nothing.
std::optional<std::string> from_hex(std::string_view digits);

}  // namespace holdfast::journal
