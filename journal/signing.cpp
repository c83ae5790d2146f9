#include "journal/signing.h"

#include <fmt/format.h>
#include <openssl/pem.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "journal/crypto.h"
#include "journal/files.h"

namespace holdfast::journal {
namespace {

struct CloseFile {
  void operator()(std::FILE* file) const { std::fclose(file); }
};
using File = std::unique_ptr<std::FILE, CloseFile>;

struct FreeContext {
  void operator()(EVP_MD_CTX* context) const { EVP_MD_CTX_free(context); }
};
using Context = std::unique_ptr<EVP_MD_CTX, FreeContext>;

bool is_ed25519(const EVP_PKEY* key) { return key && EVP_PKEY_get_id(key) == EVP_PKEY_ED25519; }

std::string to_pem(EVP_PKEY* key) {
  std::unique_ptr<BIO, decltype(&BIO_free)> memory(BIO_new(BIO_s_mem()), &BIO_free);
  if (!memory || PEM_write_bio_PUBKEY(memory.get(), key) != 1) std::abort();  // no memory
  char* text = nullptr;
  long size = BIO_get_mem_data(memory.get(), &text);
  return std::string(text, static_cast<std::size_t>(size));
}

}  // namespace

Result<PublicKey> PublicKey::read(const std::string& path) {
  File file(std::fopen(path.c_str(), "re"));
  if (!file) return Error{ErrorCode::not_found, fmt::format("{}: the public key cannot be read: {}", path, std::strerror(errno))};
  EVP_PKEY* key = PEM_read_PUBKEY(file.get(), nullptr, nullptr, nullptr);
  PublicKey found(key);
  if (!is_ed25519(key)) return Error{ErrorCode::corrupt, fmt::format("{}: holds no Ed25519 public key (PEM)", path)};
  return found;
}

Result<PublicKey> PublicKey::from_hex(std::string_view digits) {
  std::optional<std::string> raw = journal::from_hex(digits);
  EVP_PKEY* key = raw && raw->size() == 32
                      ? EVP_PKEY_new_raw_public_key(EVP_PKEY_ED25519, nullptr, reinterpret_cast<const unsigned char*>(raw->data()), raw->size())
                      : nullptr;
  if (!key) return Error{ErrorCode::corrupt, "there is no Ed25519 public key where one belongs"};
  return PublicKey(key);
}

std::string PublicKey::hex() const {
  std::string raw(32, '\0');
  std::size_t size = raw.size();
  EVP_PKEY_get_raw_public_key(key_.get(), reinterpret_cast<unsigned char*>(raw.data()), &size);
  return to_hex(raw);
}

bool PublicKey::verifies(std::string_view text, std::string_view signature) const {
  Context context(EVP_MD_CTX_new());
  return context && EVP_DigestVerifyInit(context.get(), nullptr, nullptr, nullptr, key_.get()) == 1 &&
         EVP_DigestVerify(context.get(), reinterpret_cast<const unsigned char*>(signature.data()), signature.size(),
                          reinterpret_cast<const unsigned char*>(text.data()), text.size()) == 1;
}

std::string SigningKey::sign(std::string_view text) const {
  Context context(EVP_MD_CTX_new());
  std::string signature(64, '\0');
  std::size_t size = signature.size();
  bool is_signed = context && EVP_DigestSignInit(context.get(), nullptr, nullptr, nullptr, public_.key_.get()) == 1 &&
                   EVP_DigestSign(context.get(), reinterpret_cast<unsigned char*>(signature.data()), &size,
                                  reinterpret_cast<const unsigned char*>(text.data()), text.size()) == 1;
  if (!is_signed) std::abort();  // a broken OpenSSL: there is no safe way on
  return signature;
}

Result<SigningKey> SigningKey::open(const std::string& journal, const Key& base) {
  Key seed = derive_key(base, "holdfast signing");
  EVP_PKEY* key = EVP_PKEY_new_raw_private_key(EVP_PKEY_ED25519, nullptr, seed.data(), seed.size());
  if (!key) std::abort();  // a broken OpenSSL
  SigningKey signer(key);
  auto shown = PublicKey::read(public_path(journal));
  if (shown && shown->hex() == signer.public_key().hex()) return signer;
  if (Status written = write_file(public_path(journal), to_pem(key), 0644); !written) return written.error();
  return signer;
}

}  // namespace holdfast::journal
