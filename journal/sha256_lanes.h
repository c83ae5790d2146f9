// SHA-256 (FIPS 180-4) of many streams at once: sixteen side by side, each in a lane of the processor's wide registers.
//
// Hashing one stream cannot be spread over lanes, since each block waits for the one before; hashing many can. Where the processor has
// AVX-512, sixteen streams are done in little more than the time of two by OpenSSL without SHA instructions. What is left over when few
// streams remain, and everything on other processors, OpenSSL does, one stream after the other. The hashes are the same.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string_view>

#include "journal/crypto.h"

namespace holdfast::journal {

/// A SHA-256 on its way. Copyable; not thread-safe.
struct Sha256Stream {
  std::array<std::uint32_t, 8> state{0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
  std::uint64_t size = 0;               ///< bytes fed
  std::array<std::uint8_t, 64> rest{};  ///< the bytes behind the last whole block
};

/// The next bytes of a stream. They, and the stream, must outlive the call that they are given to.
struct Sha256Piece {
  Sha256Stream* stream;
  std::string_view bytes;
  Hash* hash = nullptr;  ///< the stream ends with this piece, and its hash goes there; null: more will come
};

/// How streams are hashed side by side. The portable way is slow, and there so that every machine can test the rest.
enum class Lanes { none, portable, avx512 };

/// The fastest way that this processor has.
struct LaneChoice {
  Lanes lanes = Lanes::none;
  std::size_t least = 0;  ///< with fewer streams than this, OpenSSL is faster
};
LaneChoice best_lanes();

/// Feeds the pieces to their streams. Pieces of one stream go in the order in which they stand; streams that have ended
/// take no more. Thread-safe for different streams.
void feed(std::span<const Sha256Piece> pieces, LaneChoice choice = best_lanes());

}  // namespace holdfast::journal
