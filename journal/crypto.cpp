#include "journal/crypto.h"

#include <openssl/kdf.h>
#include <openssl/params.h>
#include <openssl/rand.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace holdfast::journal {
namespace {

void require(bool worked, const char* what) {
  if (worked) return;
  std::fprintf(stderr, "holdfast: OpenSSL cannot %s; stopping\n", what);
  std::abort();
}

const unsigned char* data(std::string_view bytes) { return reinterpret_cast<const unsigned char*>(bytes.data()); }

/// One cipher context a thread and direction. Setting up a key costs more than a small message: keep the last one.
class GcmContext {
 public:
  explicit GcmContext(int encrypt) : encrypt_(encrypt) {
    context_.reset(EVP_CIPHER_CTX_new());
    require(context_ && EVP_CipherInit_ex(context_.get(), cipher(), nullptr, nullptr, nullptr, encrypt) == 1, "set up AES-256-GCM");
  }
  ~GcmContext() { OPENSSL_cleanse(key_.data(), key_.size()); }

  EVP_CIPHER_CTX* start(const Key& key, const unsigned char* nonce, std::string_view associated) {
    bool same = has_key_ && key_ == key;
    require(EVP_CipherInit_ex(context_.get(), nullptr, nullptr, same ? nullptr : key.data(), nonce, encrypt_) == 1, "start AES-256-GCM");
    key_ = key;
    has_key_ = true;
    int ignored;
    require(EVP_CipherUpdate(context_.get(), nullptr, &ignored, data(associated), static_cast<int>(associated.size())) == 1, "add associated data");
    return context_.get();
  }

 private:
  static const EVP_CIPHER* cipher() {
    static EVP_CIPHER* fetched = EVP_CIPHER_fetch(nullptr, "AES-256-GCM", nullptr);
    return fetched;
  }
  struct Free {
    void operator()(EVP_CIPHER_CTX* context) const { EVP_CIPHER_CTX_free(context); }
  };
  std::unique_ptr<EVP_CIPHER_CTX, Free> context_;
  int encrypt_;
  bool has_key_ = false;
  Key key_{};
};

const EVP_MD* sha256_method() {
  static EVP_MD* fetched = EVP_MD_fetch(nullptr, "SHA256", nullptr);
  return fetched;
}

}  // namespace

Sha256::Sha256() : context_(EVP_MD_CTX_new()) {
  require(context_ && EVP_DigestInit_ex(context_.get(), sha256_method(), nullptr) == 1, "start SHA-256");
}

void Sha256::update(std::string_view bytes) { require(EVP_DigestUpdate(context_.get(), bytes.data(), bytes.size()) == 1, "go on with SHA-256"); }

Hash Sha256::finish() {
  Hash hash;
  require(EVP_DigestFinal_ex(context_.get(), hash.data(), nullptr) == 1, "end SHA-256");
  return hash;
}

Hash sha256(std::string_view a, std::string_view b) {
  thread_local std::unique_ptr<EVP_MD_CTX, void (*)(EVP_MD_CTX*)> context(EVP_MD_CTX_new(), EVP_MD_CTX_free);
  Hash hash;
  require(EVP_DigestInit_ex(context.get(), sha256_method(), nullptr) == 1 && EVP_DigestUpdate(context.get(), a.data(), a.size()) == 1 &&
              EVP_DigestUpdate(context.get(), b.data(), b.size()) == 1 && EVP_DigestFinal_ex(context.get(), hash.data(), nullptr) == 1,
          "compute SHA-256");
  return hash;
}

void random_bytes(void* out, std::size_t size) {
  // OpenSSL's generator makes system calls each time; asked for many bytes at once it costs a message next to nothing.
  struct Pool {
    unsigned char bytes[4096];
    std::size_t used = sizeof bytes;
  };
  thread_local Pool pool;
  if (size > sizeof pool.bytes / 4) {
    require(RAND_bytes(static_cast<unsigned char*>(out), static_cast<int>(size)) == 1, "make random bytes");
    return;
  }
  if (sizeof pool.bytes - pool.used < size) {
    require(RAND_bytes(pool.bytes, sizeof pool.bytes) == 1, "make random bytes");
    pool.used = 0;
  }
  std::memcpy(out, pool.bytes + pool.used, size);
  OPENSSL_cleanse(pool.bytes + pool.used, size);
  pool.used += size;
}

Key random_key() {
  Key key;
  random_bytes(key.data(), key.size());
  return key;
}

Key derive_key(const Key& key, std::string_view label) {
  Key derived;
  EVP_KDF* method = EVP_KDF_fetch(nullptr, "HKDF", nullptr);
  EVP_KDF_CTX* context = EVP_KDF_CTX_new(method);
  char digest[] = "SHA256";
  OSSL_PARAM parameters[] = {
      OSSL_PARAM_construct_utf8_string("digest", digest, 0),
      OSSL_PARAM_construct_octet_string("key", const_cast<std::uint8_t*>(key.data()), key.size()),
      OSSL_PARAM_construct_octet_string("info", const_cast<char*>(label.data()), label.size()),
      OSSL_PARAM_construct_end(),
  };
  require(EVP_KDF_derive(context, derived.data(), derived.size(), parameters) == 1, "derive a key");
  EVP_KDF_CTX_free(context);
  EVP_KDF_free(method);
  return derived;
}

KeyedHash::KeyedHash(const Key& key) {
  EVP_MAC* method = EVP_MAC_fetch(nullptr, "HMAC", nullptr);
  context_.reset(EVP_MAC_CTX_new(method));
  EVP_MAC_free(method);
  char digest[] = "SHA256";
  OSSL_PARAM parameters[] = {OSSL_PARAM_construct_utf8_string("digest", digest, 0), OSSL_PARAM_construct_end()};
  require(context_ && EVP_MAC_init(context_.get(), key.data(), key.size(), parameters) == 1, "set up HMAC");
}

Hash KeyedHash::operator()(std::string_view bytes) {
  Hash hash;
  std::size_t size = 0;
  require(EVP_MAC_init(context_.get(), nullptr, 0, nullptr) == 1 && EVP_MAC_update(context_.get(), data(bytes), bytes.size()) == 1 &&
              EVP_MAC_final(context_.get(), hash.data(), &size, hash.size()) == 1,
          "compute HMAC");
  return hash;
}

void seal(const Key& key, std::string_view plain, std::string_view associated, std::string& out) {
  thread_local GcmContext gcm(1);
  std::size_t start = out.size();
  out.resize(start + seal_overhead + plain.size());
  auto* nonce = reinterpret_cast<unsigned char*>(out.data() + start);
  random_bytes(nonce, nonce_size);
  EVP_CIPHER_CTX* context = gcm.start(key, nonce, associated);
  unsigned char* cipher_text = nonce + nonce_size;
  int written = 0;
  if (!plain.empty()) require(EVP_CipherUpdate(context, cipher_text, &written, data(plain), static_cast<int>(plain.size())) == 1, "encrypt");
  int last = 0;
  require(EVP_CipherFinal_ex(context, cipher_text + written, &last) == 1, "end encrypting");
  require(EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_AEAD_GET_TAG, tag_size, cipher_text + plain.size()) == 1, "make a tag");
}

std::optional<std::string> open_sealed(const Key& key, std::string_view sealed, std::string_view associated) {
  if (sealed.size() < seal_overhead) return std::nullopt;
  thread_local GcmContext gcm(0);
  EVP_CIPHER_CTX* context = gcm.start(key, data(sealed), associated);
  std::string_view cipher_text = sealed.substr(nonce_size, sealed.size() - seal_overhead);
  std::string plain(cipher_text.size(), '\0');
  auto* out = reinterpret_cast<unsigned char*>(plain.data());
  int written = 0;
  if (!cipher_text.empty() && EVP_CipherUpdate(context, out, &written, data(cipher_text), static_cast<int>(cipher_text.size())) != 1)
    return std::nullopt;
  auto* tag = const_cast<unsigned char*>(data(sealed) + sealed.size() - tag_size);
  int last = 0;
  if (EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_AEAD_SET_TAG, tag_size, tag) != 1 || EVP_CipherFinal_ex(context, out + written, &last) != 1)
    return std::nullopt;
  return plain;
}

std::string to_hex(std::string_view bytes) {
  static constexpr char digit_of[] = "0123456789abcdef";
  std::string digits;
  digits.reserve(bytes.size() * 2);
  for (unsigned char byte : bytes) {
    digits += digit_of[byte >> 4];
    digits += digit_of[byte & 15];
  }
  return digits;
}

std::optional<std::string> from_hex(std::string_view digits) {
  if (digits.size() % 2 != 0) return std::nullopt;
  std::string bytes;
  for (std::size_t i = 0; i < digits.size(); i += 2) {
    int high = OPENSSL_hexchar2int(static_cast<unsigned char>(digits[i]));
    int low = OPENSSL_hexchar2int(static_cast<unsigned char>(digits[i + 1]));
    if (high < 0 || low < 0) return std::nullopt;
    bytes += static_cast<char>(high << 4 | low);
  }
  return bytes;
}

}  // namespace holdfast::journal
