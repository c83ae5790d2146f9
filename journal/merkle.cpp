#include "journal/merkle.h"

#include <string>

namespace holdfast::journal {
namespace {

Hash node_hash(const Hash& left, const Hash& right) {
  std::string text("\x01", 1);
  text += view(left);
  return sha256(text, view(right));
}

}  // namespace

Hash leaf_hash(std::string_view data) { return sha256(std::string_view("\0", 1), data); }

MerkleTree::MerkleTree(std::vector<Hash> leaves) {
  levels_.push_back(std::move(leaves));
  while (levels_.back().size() > 1) {
    const std::vector<Hash>& below = levels_.back();
    std::vector<Hash> level;
    level.reserve((below.size() + 1) / 2);
    for (std::size_t i = 0; i < below.size(); i += 2) level.push_back(i + 1 < below.size() ? node_hash(below[i], below[i + 1]) : below[i]);
    levels_.push_back(std::move(level));
  }
}

Hash MerkleTree::root() const { return levels_.back().empty() ? sha256("") : levels_.back().front(); }

std::vector<Hash> MerkleTree::path(std::uint64_t index) const {
  std::vector<Hash> path;
  for (const std::vector<Hash>& level : levels_) {
    std::uint64_t sibling = index ^ 1;
    if (sibling < level.size()) path.push_back(level[sibling]);
    index /= 2;
  }
  return path;
}

std::optional<Hash> root_of_path(const Hash& leaf, std::uint64_t index, std::uint64_t leaves, const std::vector<Hash>& path) {
  if (index >= leaves) return std::nullopt;
  Hash hash = leaf;
  std::uint64_t last = leaves - 1;
  for (const Hash& sibling : path) {
    if (last == 0) return std::nullopt;
    bool is_right = (index & 1) != 0;
    if (is_right || index == last) {
      // A node without a sibling goes up as it is, until it has one.
      while (!is_right && index != 0) {
        index >>= 1;
        last >>= 1;
        is_right = (index & 1) != 0;
      }
      hash = node_hash(sibling, hash);
    } else {
      hash = node_hash(hash, sibling);
    }
    index >>= 1;
    last >>= 1;
  }
  if (last != 0) return std::nullopt;
  return hash;
}

}  // namespace holdfast::journal
