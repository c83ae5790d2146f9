#include "journal/sha256_lanes.h"

#include <algorithm>
#include <catch2/catch.hpp>
#include <random>
#include <vector>

using namespace holdfast::journal;

namespace {

/// Every way of this processor, each with few lanes in use and with many.
std::vector<LaneChoice> choices() {
  std::vector<LaneChoice> all{{Lanes::none, 0}, {Lanes::portable, 1}, {Lanes::portable, 5}, best_lanes()};
  if (best_lanes().lanes == Lanes::avx512) all.push_back({Lanes::avx512, 1});
  return all;
}

std::string noise(std::mt19937& random, std::size_t size) {
  std::string bytes(size, '\0');
  for (char& byte : bytes) byte = static_cast<char>(random());
  return bytes;
}

}  // namespace

TEST_CASE("streams side by side have the hashes that each has alone, whatever their sizes and pieces") {
  std::mt19937 random(7);
  for (const LaneChoice& choice : choices())
    for (std::size_t count : {1, 2, 3, 15, 16, 17, 40}) {
      std::vector<std::string> contents;
      for (std::size_t i = 0; i < count; ++i) contents.push_back(noise(random, random() % (i % 5 == 0 ? 20000 : 200)));
      std::vector<Sha256Stream> streams(count);
      std::vector<Hash> hashes(count);
      std::vector<std::size_t> fed(count);
      // Three calls with some pieces each; the last ends all.
      for (int call = 0; call < 3; ++call) {
        std::vector<Sha256Piece> pieces;
        for (int turn = 0; turn < 3; ++turn)
          for (std::size_t i = 0; i < count; ++i) {
            bool is_last = call == 2 && turn == 2;
            std::size_t left = contents[i].size() - fed[i], size = is_last ? left : random() % (left + 1);
            pieces.push_back({&streams[i], std::string_view(contents[i]).substr(fed[i], size), is_last ? &hashes[i] : nullptr});
            fed[i] += size;
          }
        feed(pieces, choice);
      }
      for (std::size_t i = 0; i < count; ++i) REQUIRE(to_hex(view(hashes[i])) == to_hex(view(sha256(contents[i]))));
    }
}

TEST_CASE("every length around a block's end is padded rightly") {
  for (const LaneChoice& choice : choices()) {
    std::string content(300, 'x');
    std::vector<Sha256Stream> streams(content.size());
    std::vector<Hash> hashes(content.size());
    std::vector<Sha256Piece> pieces;
    for (std::size_t size = 0; size < content.size(); ++size)
      pieces.push_back({&streams[size], std::string_view(content).substr(0, size), &hashes[size]});
    feed(pieces, choice);
    for (std::size_t size = 0; size < content.size(); ++size) REQUIRE(to_hex(view(hashes[size])) == to_hex(view(sha256(content.substr(0, size)))));
  }
}

TEST_CASE("no pieces are no work") { feed({}); }
