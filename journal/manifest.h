// A manifest: the SHA-256 of each block of a sealed segment's file as it is stored now, signed. With it
// damage is found, and located, by whoever has the public key alone (FORMAT.md, "Manifests").
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "journal/pace.h"
#include "journal/signing.h"

namespace holdfast::journal {

inline constexpr std::size_t manifest_block = 1 << 20;

std::string manifest_path(const std::string& journal, std::uint32_t segment);
std::string next_manifest_path(const std::string& journal, std::uint32_t segment);

/// Reads the segment's file and writes its manifest, whole or not at all. Errors: io, no_space.
Status write_manifest(const std::string& journal, std::uint32_t segment, const SigningKey& key, Pace& pace);

// A file is put in a segment's place in three steps, so that at each moment one of two manifests fits: the
// next manifest is written, the file is renamed, the manifest is renamed.
/// Writes the next manifest, of the file that is to come.
Status write_next_manifest(const std::string& journal, std::uint32_t segment, const std::string& file, const SigningKey& key, Pace& pace);
/// Makes the next manifest the manifest.
Status take_next_manifest(const std::string& journal, std::uint32_t segment);

/// Compares the file with its manifest. Returns what is wrong, one sentence each, naming the bytes; empty
/// when nothing is. key may be null: then the key that the manifest names is believed. on_bytes is told how
/// many bytes were read.
std::vector<std::string> check_manifest(const std::string& journal, std::uint32_t segment, const PublicKey* key,
                                        const std::function<void(std::uint64_t)>& on_bytes);
/// The same, of a manifest and a file that have other names.
std::vector<std::string> check_against(const std::string& manifest, const std::string& file, std::uint32_t segment, const PublicKey* key,
                                       const std::function<void(std::uint64_t)>& on_bytes);

}  // namespace holdfast::journal
