#include "journal/compression.h"

#include <zdict.h>
#include <zstd.h>

#include <cstdlib>

namespace holdfast::journal {
namespace {

/// In the background there is time; slower levels save less than 1 % more.
constexpr int compression_level = 9;
constexpr std::size_t dictionary_size = 64 * 1024;
/// With fewer samples zstd has nothing to learn from.
constexpr std::size_t fewest_samples = 64;

enum Method : char { stored = 0, compressed = 1, with_dictionary = 2 };

struct Free {
  void operator()(ZSTD_CCtx* context) const { ZSTD_freeCCtx(context); }
  void operator()(ZSTD_DCtx* context) const { ZSTD_freeDCtx(context); }
  void operator()(ZSTD_CDict* dictionary) const { ZSTD_freeCDict(dictionary); }
  void operator()(ZSTD_DDict* dictionary) const { ZSTD_freeDDict(dictionary); }
};

}  // namespace

struct Compressor::State {
  std::unique_ptr<ZSTD_CCtx, Free> context{ZSTD_createCCtx()};
  std::unique_ptr<ZSTD_CDict, Free> dictionary;
};

Compressor::Compressor(std::string_view dictionary) : state_(std::make_unique<State>()) {
  if (!state_->context) std::abort();  // no memory
  ZSTD_CCtx_setParameter(state_->context.get(), ZSTD_c_compressionLevel, compression_level);
  if (dictionary.empty()) return;
  state_->dictionary.reset(ZSTD_createCDict(dictionary.data(), dictionary.size(), compression_level));
  if (!state_->dictionary) std::abort();
  ZSTD_CCtx_refCDict(state_->context.get(), state_->dictionary.get());
  ZSTD_CCtx_setParameter(state_->context.get(), ZSTD_c_dictIDFlag, 0);  // a segment has one dictionary
}

Compressor::~Compressor() = default;

std::string Compressor::pack(std::string_view plain) const {
  std::string packed(1 + ZSTD_compressBound(plain.size()), '\0');
  std::size_t size = ZSTD_compress2(state_->context.get(), packed.data() + 1, packed.size() - 1, plain.data(), plain.size());
  bool is_smaller = !ZSTD_isError(size) && size < plain.size();
  if (!is_smaller) {
    packed.assign(1, stored);
    packed += plain;
    return packed;
  }
  packed[0] = state_->dictionary ? with_dictionary : compressed;
  packed.resize(1 + size);
  return packed;
}

struct Decompressor::State {
  std::unique_ptr<ZSTD_DDict, Free> dictionary;
};

Decompressor::Decompressor(std::string_view dictionary) : state_(std::make_unique<State>()) {
  if (dictionary.empty()) return;
  state_->dictionary.reset(ZSTD_createDDict(dictionary.data(), dictionary.size()));
  if (!state_->dictionary) std::abort();  // no memory
}

Decompressor::~Decompressor() = default;

std::optional<std::string> Decompressor::unpack(std::string_view packed, std::size_t most) const {
  thread_local std::unique_ptr<ZSTD_DCtx, Free> context{ZSTD_createDCtx()};
  if (packed.empty()) return std::nullopt;
  char method = packed.front();
  packed.remove_prefix(1);
  if (method == stored) return packed.size() <= most ? std::optional(std::string(packed)) : std::nullopt;
  bool is_known = method == compressed || (method == with_dictionary && state_->dictionary);
  unsigned long long size = ZSTD_getFrameContentSize(packed.data(), packed.size());
  if (!is_known || size == ZSTD_CONTENTSIZE_ERROR || size == ZSTD_CONTENTSIZE_UNKNOWN || size > most) return std::nullopt;
  std::string plain(size, '\0');
  std::size_t done = method == compressed ? ZSTD_decompressDCtx(context.get(), plain.data(), plain.size(), packed.data(), packed.size())
                                          : ZSTD_decompress_usingDDict(context.get(), plain.data(), plain.size(), packed.data(), packed.size(),
                                                                       state_->dictionary.get());
  if (ZSTD_isError(done) || done != size) return std::nullopt;
  return plain;
}

std::string train_dictionary(const std::vector<std::string>& samples, std::uint64_t one_in) {
  if (samples.size() < fewest_samples) return {};
  std::string all;
  std::vector<std::size_t> sizes;
  for (const std::string& sample : samples) {
    all += sample;
    sizes.push_back(sample.size());
  }
  std::string dictionary(dictionary_size, '\0');
  std::size_t size = ZDICT_trainFromBuffer(dictionary.data(), dictionary.size(), all.data(), sizes.data(), static_cast<unsigned>(sizes.size()));
  if (ZDICT_isError(size)) return {};
  dictionary.resize(size);
  Compressor with(dictionary), without;
  std::int64_t saved = 0;
  for (const std::string& sample : samples)
    saved += static_cast<std::int64_t>(without.pack(sample).size()) - static_cast<std::int64_t>(with.pack(sample).size());
  bool pays = saved * static_cast<std::int64_t>(one_in) > static_cast<std::int64_t>(dictionary.size());
  return pays ? dictionary : std::string();
}

}  // namespace holdfast::journal
