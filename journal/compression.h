// Compression of what sealed segments hold (zstd), with a dictionary of the segment's own where that pays.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace holdfast::journal {

/// One thread at a time.
class Compressor {
 public:
  /// An empty dictionary: none.
  explicit Compressor(std::string_view dictionary = {});
  ~Compressor();
  /// The plain bytes as they are stored: a byte that says how, then the bytes (FORMAT.md, "Compacted
  /// segments"). At most one byte longer than they were.
  std::string pack(std::string_view plain) const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

/// Thread-safe.
class Decompressor {
 public:
  explicit Decompressor(std::string_view dictionary = {});
  ~Decompressor();
  /// The plain bytes; nothing when they were not packed so, or would be more than most.
  std::optional<std::string> unpack(std::string_view packed, std::size_t most) const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

/// A dictionary for small pieces that resemble the samples; empty when there are too few of them, or when it
/// would save less than its own size over all pieces, of which the samples are one in so many.
std::string train_dictionary(const std::vector<std::string>& samples, std::uint64_t one_in);

}  // namespace holdfast::journal
