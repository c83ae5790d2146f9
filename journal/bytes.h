// Fixed-width little-endian integers and length-prefixed strings, written to and read from byte strings.
//
// ByteReader never reads past its input: after the first short read every further read yields zero or nothing, and
// ok() is false. Check ok() once at the end.
#pragma once

#include <bit>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>

namespace holdfast {

static_assert(std::endian::native == std::endian::little, "the journal's integers are little-endian");

class ByteWriter {
 public:
  template <class Int>
  void integer(Int value) {
    char raw[sizeof value];
    std::memcpy(raw, &value, sizeof value);
    out_.append(raw, sizeof value);
  }
  /// A 32-bit length and then the bytes.
  void string(std::string_view bytes) {
    integer(static_cast<std::uint32_t>(bytes.size()));
    out_.append(bytes);
  }
  /// The bytes alone; the reader knows their number.
  void raw(std::string_view bytes) { out_.append(bytes); }

  const std::string& bytes() const { return out_; }
  std::string take() { return std::move(out_); }

 private:
  std::string out_;
};

class ByteReader {
 public:
  explicit ByteReader(std::string_view input) : left_(input) {}

  template <class Int>
  Int integer() {
    Int value{};
    if (left_.size() < sizeof value) return fail(), value;
    std::memcpy(&value, left_.data(), sizeof value);
    left_.remove_prefix(sizeof value);
    return value;
  }
  /// A std::array of bytes, such as a hash.
  template <class Array>
  Array array() {
    Array value{};
    std::string_view bytes = raw(value.size());
    if (ok_) std::memcpy(value.data(), bytes.data(), bytes.size());
    return value;
  }
  std::string_view string() { return raw(integer<std::uint32_t>()); }
  std::string_view raw(std::size_t size) {
    if (left_.size() < size) return fail(), std::string_view();
    std::string_view bytes = left_.substr(0, size);
    left_.remove_prefix(size);
    return bytes;
  }

  bool ok() const { return ok_; }
  bool at_end() const { return left_.empty(); }
  std::string_view rest() const { return left_; }

 private:
  void fail() {
    ok_ = false;
    left_ = {};
  }
  std::string_view left_;
  bool ok_ = true;
};

/// Eight bytes, most significant first, so that keys sort as numbers do.
inline std::string big_endian(std::uint64_t value) {
  value = __builtin_bswap64(value);
  return std::string(reinterpret_cast<const char*>(&value), sizeof value);
}

/// The inverse of big_endian(); bytes must hold at least eight.
inline std::uint64_t from_big_endian(const char* bytes) {
  std::uint64_t value;
  std::memcpy(&value, bytes, sizeof value);
  return __builtin_bswap64(value);
}

}  // namespace holdfast
