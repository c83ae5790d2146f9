// A Merkle tree as RFC 9162 2.1 defines it, over the commitments of a segment's records.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "journal/crypto.h"

namespace holdfast::journal {

/// Hash of a leaf: SHA-256(0x00 | data).
Hash leaf_hash(std::string_view data);

class MerkleTree {
 public:
  /// leaves are leaf hashes, in order.
  explicit MerkleTree(std::vector<Hash> leaves);
  /// Of no leaves: the SHA-256 of nothing.
  Hash root() const;
  /// The inclusion proof of a leaf (RFC 9162 2.1.3.1), from the leaf upwards. index must be a leaf's.
  std::vector<Hash> path(std::uint64_t index) const;

 private:
  std::vector<std::vector<Hash>> levels_;  ///< leaves first; a node without a sibling is its own parent
};

/// The root that a leaf, its index, the number of leaves and a path lead to (RFC 9162 2.1.3.2); nothing when
/// the path does not fit the place.
std::optional<Hash> root_of_path(const Hash& leaf, std::uint64_t index, std::uint64_t leaves, const std::vector<Hash>& path);

}  // namespace holdfast::journal
