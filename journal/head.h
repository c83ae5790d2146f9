// A head: what a sealed segment's records add up to, signed, in one line of text that can be published
// anywhere.
//
// It covers the chain and a Merkle tree of the commitments, not the bytes as stored: so it stays valid
// whatever is compressed, encrypted anew or erased later (FORMAT.md, "Heads").
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "journal/crypto.h"
#include "journal/signing.h"

namespace holdfast::journal {

struct Head {
  std::uint32_t segment = 0;
  std::uint64_t first = 0;  ///< lowest cell number that the segment may hold
  std::uint64_t records = 0;
  Hash previous{}, last{};     ///< the chain's link before the segment, and after it
  Hash root{};                 ///< of the Merkle tree over the commitments
  std::int64_t time_us = 0;    ///< when it was sealed; microseconds since 1970
  Hash before{};               ///< SHA-256 of the head line before it; zeros for the first
  std::string key, signature;  ///< hexadecimal
};

/// The line, without a line end, signed.
std::string sign_head(Head& head, const SigningKey& key);
/// Reads a line; says nothing about its signature. Error: corrupt, saying what is wrong.
Result<Head> parse_head(std::string_view line);
/// True when the signature is that of the key.
bool is_signed_by(std::string_view line, const PublicKey& key);

std::string head_folder(const std::string& journal);
std::string head_path(const std::string& journal, std::uint32_t segment);
/// The line of a segment's head. Errors: not_found (not sealed yet), io.
Result<std::string> read_head(const std::string& journal, std::uint32_t segment);
/// Numbers of the segments that have heads, ascending. They outlive their segments.
std::vector<std::uint32_t> list_heads(const std::string& journal);
/// Whole or not at all, and synced.
Status write_head(const std::string& journal, std::uint32_t segment, const std::string& line);

}  // namespace holdfast::journal
