#include "journal/manifest.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <span>
#include <sstream>

#include "journal/crypto.h"
#include "journal/files.h"
#include "journal/lmdb.h"
#include "journal/segment.h"
#include "journal/sha256_lanes.h"

namespace holdfast::journal {
namespace {

constexpr std::string_view manifest_magic = "holdfast-manifest-1";
constexpr std::string_view mark = "signature=";

/// The hashes of a file's blocks, in hexadecimal, and its size.
struct Blocks {
  std::vector<std::string> hashes;
  std::uint64_t size = 0;
};

/// So many blocks are hashed side by side, a stretch of each at a time: together they stay in the processor's cache.
constexpr std::size_t blocks_at_once = 16, stretch = 32 * 1024;

Result<Blocks> read_blocks(const std::string& path, Pace& pace, const std::function<void(std::uint64_t)>& on_bytes) {
  FileDescriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!file) return lmdb_error(errno, path);
  Blocks blocks;
  std::vector<char> buffer(blocks_at_once * stretch);
  for (bool is_at_end = false; !is_at_end;) {
    std::uint64_t begin = blocks.size;
    ::posix_fadvise(file.get(), static_cast<off_t>(begin), blocks_at_once * manifest_block, POSIX_FADV_WILLNEED);
    std::array<Sha256Stream, blocks_at_once> streams;
    std::array<Hash, blocks_at_once> hashes;
    for (std::size_t offset = 0; offset < manifest_block; offset += stretch) {
      std::vector<Sha256Piece> pieces;
      for (std::size_t i = 0; i < blocks_at_once; ++i) {
        std::uint64_t place = begin + i * manifest_block + offset;
        std::span<char> part = std::span(buffer).subspan(i * stretch, stretch);
        ssize_t got = read_at(file.get(), part, place);
        if (got < 0) return Error{ErrorCode::io, fmt::format("{}: reading failed at byte {} or after it: {}", path, place, std::strerror(errno))};
        std::string_view bytes(part.data(), static_cast<std::size_t>(got));
        is_at_end |= bytes.size() < stretch;
        blocks.size += bytes.size();
        bool is_last = offset + stretch == manifest_block;
        pieces.push_back({&streams[i], bytes, is_last ? &hashes[i] : nullptr});
      }
      feed(pieces);
      pace.step();
    }
    for (std::size_t i = 0; i < blocks_at_once && begin + i * manifest_block < blocks.size; ++i) blocks.hashes.push_back(to_hex(view(hashes[i])));
    if (on_bytes) on_bytes(blocks.size);
  }
  return blocks;
}

}  // namespace

std::string manifest_path(const std::string& journal, std::uint32_t segment) {
  return fmt::format("{}/{:010}.manifest", segment_folder(journal), segment);
}

std::string next_manifest_path(const std::string& journal, std::uint32_t segment) { return manifest_path(journal, segment) + ".next"; }

namespace {

Status write_manifest_of(const std::string& file, std::uint32_t segment, const SigningKey& key, Pace& pace, const std::string& path) {
  auto blocks = read_blocks(file, pace, {});
  if (!blocks) return blocks.error();
  std::string text =
      fmt::format("{} segment={} bytes={} block={} key={}\n", manifest_magic, segment, blocks->size, manifest_block, key.public_key().hex());
  for (const std::string& hash : blocks->hashes) text += hash + "\n";
  std::string signature = to_hex(key.sign(text));
  return write_file(path, fmt::format("{}{}{}\n", text, mark, signature));
}

}  // namespace

Status write_manifest(const std::string& journal, std::uint32_t segment, const SigningKey& key, Pace& pace) {
  return write_manifest_of(segment_path(journal, segment), segment, key, pace, manifest_path(journal, segment));
}

Status write_next_manifest(const std::string& journal, std::uint32_t segment, const std::string& file, const SigningKey& key, Pace& pace) {
  return write_manifest_of(file, segment, key, pace, next_manifest_path(journal, segment));
}

Status take_next_manifest(const std::string& journal, std::uint32_t segment) {
  if (std::rename(next_manifest_path(journal, segment).c_str(), manifest_path(journal, segment).c_str()) != 0)
    return Error{ErrorCode::io, fmt::format("{}: cannot be renamed: {}", next_manifest_path(journal, segment), std::strerror(errno))};
  return sync_folder_of(manifest_path(journal, segment));
}

std::vector<std::string> check_against(const std::string& path, const std::string& segment_file, std::uint32_t segment, const PublicKey* key,
                                       const std::function<void(std::uint64_t)>& on_bytes) {
  std::ifstream manifest(path);
  if (!manifest) return {fmt::format("{}: the manifest is missing", path)};
  std::ostringstream whole;
  whole << manifest.rdbuf();
  std::string text = whole.str();
  std::size_t end = text.rfind(mark);
  std::istringstream lines(text);
  std::string first, named_key;
  std::getline(lines, first);
  unsigned number = 0;
  unsigned long long size = 0, block = 0;
  char digits[65] = "";
  bool is_read = std::sscanf(first.c_str(), "holdfast-manifest-1 segment=%u bytes=%llu block=%llu key=%64s", &number, &size, &block, digits) == 4 &&
                 block == manifest_block && end != std::string::npos;
  auto signature = is_read ? from_hex(std::string_view(text).substr(end + mark.size(), 128)) : std::nullopt;
  auto own_key = PublicKey::from_hex(digits);
  const PublicKey* signer = key ? key : own_key ? &*own_key : nullptr;
  bool is_canonical = signature && fmt::format("{}{}\n", mark, to_hex(*signature)) == std::string_view(text).substr(end);
  if (!is_read || !is_canonical || !signer) return {fmt::format("{}: the manifest is damaged", path)};
  if (number != segment) return {fmt::format("{}: this is the manifest of segment {}", path, number)};
  if (!signer->verifies(std::string_view(text).substr(0, end), *signature)) return {fmt::format("{}: the manifest's signature is not valid", path)};

  Pace pace;
  auto blocks = read_blocks(segment_file, pace, on_bytes);
  if (!blocks) return {blocks.error().message};
  std::vector<std::string> problems;
  if (blocks->size != size) problems.push_back(fmt::format("{}: has {} bytes, and had {} when it was sealed", segment_file, blocks->size, size));
  std::string hash;
  for (std::size_t i = 0; std::getline(lines, hash) && !hash.starts_with(mark); ++i)
    if (i < blocks->hashes.size() && blocks->hashes[i] != hash)
      problems.push_back(fmt::format("{}: bytes {} to {} are not those that were sealed", segment_file, i * manifest_block,
                                     std::min<std::uint64_t>((i + 1) * manifest_block, blocks->size) - 1));
  return problems;
}

std::vector<std::string> check_manifest(const std::string& journal, std::uint32_t segment, const PublicKey* key,
                                        const std::function<void(std::uint64_t)>& on_bytes) {
  std::string file = segment_path(journal, segment), next = next_manifest_path(journal, segment);
  std::vector<std::string> problems = check_against(manifest_path(journal, segment), file, segment, key, on_bytes);
  bool has_next = ::access(next.c_str(), R_OK) == 0;
  if (problems.empty() || !has_next) return problems;
  std::vector<std::string> others = check_against(next, file, segment, key, {});
  return others.empty() ? others : problems;
}

}  // namespace holdfast::journal
