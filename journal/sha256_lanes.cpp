// OpenSSL's low-level functions are deprecated, and the only ones that go on from a given state.
#define OPENSSL_SUPPRESS_DEPRECATED
#include "journal/sha256_lanes.h"

#include <openssl/sha.h>

#include <algorithm>
#include <cstring>
#include <functional>
#include <utility>
#include <vector>

#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace holdfast::journal {
namespace {

constexpr std::size_t block_size = 64;
constexpr std::size_t lane_count = 16;
/// The same word of all lanes.
typedef std::uint32_t Words __attribute__((vector_size(lane_count * 4)));
typedef std::uint8_t Bytes __attribute__((vector_size(lane_count * 4)));

/// What the lanes work on: the states, word by word, and where each lane's next block stands.
struct LaneBlock {
  alignas(64) std::uint32_t state[8][lane_count];
  const std::uint8_t* next[lane_count];
};

constexpr std::uint32_t round_constants[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5, 0xd807aa98, 0x12835b01, 0x243185be,
    0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174, 0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa,
    0x5cb0a9dc, 0x76f988da, 0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967, 0x27b70a85,
    0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85, 0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3,
    0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070, 0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f,
    0x682e6ff3, 0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

// The functions below are one text, compiled for different processors: so they are always inlined, and take vectors by reference.
#define LANES_INLINE [[gnu::always_inline]] inline

/// Exchanges the words at odd multiples of distance in a for those at even ones in b.
template <int distance, int... at>
LANES_INLINE void exchange(Words& a, Words& b, std::integer_sequence<int, at...>) {
  Words first = __builtin_shufflevector(a, b, ((at & distance) != 0 ? (at ^ distance) + 16 : at)...);
  Words second = __builtin_shufflevector(a, b, ((at & distance) != 0 ? at + 16 : at ^ distance)...);
  a = first;
  b = second;
}
template <int distance>
LANES_INLINE void exchange_all(Words (&rows)[16]) {
#pragma GCC unroll 16
  for (int row = 0; row < 16; ++row)
    if ((row & distance) == 0) exchange<distance>(rows[row], rows[row + distance], std::make_integer_sequence<int, 16>());
}

template <int... at>
LANES_INLINE void from_big_endian_words(Words& words, std::integer_sequence<int, at...>) {
  Bytes bytes = __builtin_bit_cast(Bytes, words);
  bytes = __builtin_shufflevector(bytes, bytes, (at ^ 3)...);
  words = __builtin_bit_cast(Words, bytes);
}

/// The next block of all lanes, as words: words[i] has the i-th word of each lane.
LANES_INLINE void load_blocks(LaneBlock& lanes, Words (&words)[16]) {
#pragma GCC unroll 16
  for (std::size_t lane = 0; lane < lane_count; ++lane) {
    std::memcpy(&words[lane], lanes.next[lane], block_size);
    lanes.next[lane] += block_size;
    from_big_endian_words(words[lane], std::make_integer_sequence<int, 64>());
  }
  exchange_all<1>(words);
  exchange_all<2>(words);
  exchange_all<4>(words);
  exchange_all<8>(words);
}

template <int... distances>
LANES_INLINE void rotations(Words& out, const Words& x) {
  out = (((x >> distances) | (x << (32 - distances))) ^ ...);
}

/// FIPS 180-4, 6.2.2, for all lanes at once.
LANES_INLINE void compress(LaneBlock& lanes, std::size_t blocks) {
  Words state[8];
  std::memcpy(state, lanes.state, sizeof state);
  for (; blocks > 0; --blocks) {
    Words w[16];
    load_blocks(lanes, w);
    Words a = state[0], b = state[1], c = state[2], d = state[3], e = state[4], f = state[5], g = state[6], h = state[7];
#pragma GCC unroll 64
    for (int round = 0; round < 64; ++round) {
      Words& word = w[round & 15];
      if (round >= 16) {
        const Words &before_15 = w[(round + 1) & 15], &before_7 = w[(round + 9) & 15], &before_2 = w[(round + 14) & 15];
        Words small_0, small_1;
        rotations<7, 18>(small_0, before_15);
        rotations<17, 19>(small_1, before_2);
        word += (small_0 ^ (before_15 >> 3)) + before_7 + (small_1 ^ (before_2 >> 10));
      }
      Words big_0, big_1;
      rotations<6, 11, 25>(big_1, e);
      rotations<2, 13, 22>(big_0, a);
      Words sum = h + big_1 + (g ^ (e & (f ^ g))) + round_constants[round] + word;
      h = g;
      g = f;
      f = e;
      e = d + sum;
      d = c;
      c = b;
      b = a;
      a = sum + big_0 + ((b & c) | (d & (b | c)));
    }
    state[0] += a, state[1] += b, state[2] += c, state[3] += d, state[4] += e, state[5] += f, state[6] += g, state[7] += h;
  }
  std::memcpy(lanes.state, state, sizeof state);
}

void compress_portable(LaneBlock& lanes, std::size_t blocks) { compress(lanes, blocks); }
#if defined(__x86_64__)
[[gnu::target("avx512f,avx512bw,avx512vl")]] void compress_avx512(LaneBlock& lanes, std::size_t blocks) { compress(lanes, blocks); }
#else
constexpr auto compress_avx512 = compress_portable;
#endif

/// The same for one stream.
void compress_one(std::array<std::uint32_t, 8>& state, const std::uint8_t* blocks, std::size_t count) {
  SHA256_CTX context{};
  context.md_len = SHA256_DIGEST_LENGTH;
  std::copy(state.begin(), state.end(), context.h);
  SHA256_Update(&context, blocks, count * block_size);
  std::copy(std::begin(context.h), std::end(context.h), state.begin());
}

/// One stream's way through its pieces, in runs of whole blocks.
class Course {
 public:
  using Pieces = std::span<const Sha256Piece* const>;
  explicit Course(Pieces pieces) : pieces_(pieces), bytes_(pieces.front()->bytes) {}

  const std::uint8_t* at() const { return at_; }
  std::size_t blocks() const { return blocks_; }
  Sha256Stream& stream() const { return *pieces_.front()->stream; }

  /// Call once the state has so many blocks of the run.
  void done(std::size_t blocks) {
    at_ += blocks * block_size;
    blocks_ -= blocks;
  }

  /// Sets the next run; false when there is none now.
  bool advance() {
    for (;;) {
      Sha256Stream& mine = stream();
      std::size_t kept = mine.size % block_size;
      if (kept == 0 && bytes_.size() >= block_size) {
        set_run(data(bytes_), bytes_.size() / block_size);
        mine.size += blocks_ * block_size;
        bytes_.remove_prefix(blocks_ * block_size);
        return true;
      }
      std::size_t taken = std::min(block_size - kept, bytes_.size());
      if (taken > 0) std::memcpy(mine.rest.data() + kept, bytes_.data(), taken);
      mine.size += taken;
      bytes_.remove_prefix(taken);
      if (kept + taken == block_size) {
        set_run(mine.rest.data(), 1);
        return true;
      }
      if (pieces_.front()->hash && !is_padded_) {
        pad(kept + taken);
        return true;
      }
      if (pieces_.size() == 1) return false;
      pieces_ = pieces_.subspan(1);
      bytes_ = pieces_.front()->bytes;
    }
  }

  /// Gives the hash to whoever asked for it. Call when the course has come to its end and the state is the stream's own.
  void finish() const {
    Hash* hash = pieces_.front()->hash;
    if (!hash) return;
    for (std::size_t i = 0; i < hash->size(); ++i) (*hash)[i] = static_cast<std::uint8_t>(stream().state[i / 4] >> (24 - 8 * (i % 4)));
  }

 private:
  static const std::uint8_t* data(std::string_view bytes) { return reinterpret_cast<const std::uint8_t*>(bytes.data()); }
  void set_run(const std::uint8_t* at, std::size_t blocks) {
    at_ = at;
    blocks_ = blocks;
  }

  /// FIPS 180-4, 5.1.1: a bit, zeros, and the length in bits.
  void pad(std::size_t kept) {
    is_padded_ = true;
    std::size_t blocks = kept + 9 > block_size ? 2 : 1;
    std::memcpy(padding_, stream().rest.data(), kept);
    padding_[kept] = 0x80;
    std::memset(padding_ + kept + 1, 0, blocks * block_size - kept - 1);
    for (std::size_t i = 0; i < 8; ++i) padding_[blocks * block_size - 1 - i] = static_cast<std::uint8_t>(stream().size * 8 >> (8 * i));
    set_run(padding_, blocks);
  }

  Pieces pieces_;           ///< the one that is being fed, and those to come
  std::string_view bytes_;  ///< what is left of it
  const std::uint8_t* at_ = nullptr;
  std::size_t blocks_ = 0;
  bool is_padded_ = false;
  std::uint8_t padding_[2 * block_size];
};

void feed_alone(Course& course) {
  do {
    compress_one(course.stream().state, course.at(), course.blocks());
  } while (course.advance());
  course.finish();
}

/// Sixteen courses at a time.
class SideBySide {
 public:
  explicit SideBySide(LaneChoice choice) : choice_(choice) {}

  /// @param courses  each with its first run
  void run(std::vector<Course>& courses) {
    std::size_t waiting = 0;
    for (;;) {
      while (used_ < lane_count && waiting < courses.size()) enter(courses[waiting++]);
      if (used_ < choice_.least) break;
      step();
    }
    while (used_ > 0) {
      Course& last = *running_[used_ - 1];
      leave(used_ - 1);
      feed_alone(last);
    }
  }

 private:
  void enter(Course& course) {
    for (std::size_t word = 0; word < 8; ++word) lanes_.state[word][used_] = course.stream().state[word];
    running_[used_++] = &course;
  }

  /// Takes a lane's state out; the last lane moves to its place.
  void leave(std::size_t lane) {
    --used_;
    for (std::size_t word = 0; word < 8; ++word) {
      running_[lane]->stream().state[word] = lanes_.state[word][lane];
      lanes_.state[word][lane] = lanes_.state[word][used_];
    }
    running_[lane] = running_[used_];
  }

  void step() {
    std::size_t blocks = running_[0]->blocks();
    for (std::size_t lane = 1; lane < used_; ++lane) blocks = std::min(blocks, running_[lane]->blocks());
    for (std::size_t lane = 0; lane < lane_count; ++lane) lanes_.next[lane] = running_[lane < used_ ? lane : 0]->at();
    choice_.lanes == Lanes::avx512 ? compress_avx512(lanes_, blocks) : compress_portable(lanes_, blocks);
    for (std::size_t lane = used_; lane-- > 0;) {
      Course& course = *running_[lane];
      course.done(blocks);
      if (course.blocks() > 0 || course.advance()) continue;
      leave(lane);
      course.finish();
    }
  }

  LaneChoice choice_;
  LaneBlock lanes_{};
  Course* running_[lane_count];
  std::size_t used_ = 0;
};

LaneChoice choose() {
#if defined(__x86_64__)
  unsigned a = 0, b = 0, c = 0, d = 0;
  bool has_sha = __get_cpuid_count(7, 0, &a, &b, &c, &d) != 0 && (b & bit_SHA) != 0;
  __builtin_cpu_init();
  bool has_lanes = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl");
  if (has_lanes) return {Lanes::avx512, has_sha ? 12U : 3U};
#endif
  return {};
}

}  // namespace

LaneChoice best_lanes() {
  static const LaneChoice choice = choose();
  return choice;
}

void feed(std::span<const Sha256Piece> pieces, LaneChoice choice) {
  std::vector<const Sha256Piece*> sorted;
  sorted.reserve(pieces.size());
  for (const Sha256Piece& piece : pieces) sorted.push_back(&piece);
  auto is_before = [](const Sha256Piece* a, const Sha256Piece* b) { return std::less<>()(a->stream, b->stream); };
  std::stable_sort(sorted.begin(), sorted.end(), is_before);
  std::vector<Course> courses;
  courses.reserve(sorted.size());  // runs may point into them
  for (auto begin = sorted.begin(); begin != sorted.end();) {
    auto end = std::upper_bound(begin, sorted.end(), *begin, is_before);
    courses.emplace_back(Course::Pieces(begin, end));
    if (!courses.back().advance()) courses.pop_back();
    begin = end;
  }
  if (choice.lanes != Lanes::none) return SideBySide(choice).run(courses);
  for (Course& course : courses) feed_alone(course);
}

}  // namespace holdfast::journal
