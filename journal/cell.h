// Cells: what a segment is made of. A cell is a numbered value, either a record or a piece of content (FORMAT.md,
// "Cells", "Frames").
//
// Content is cut into frames, a frame is sealed as one, and its bytes are spread over cells that fill an LMDB page
// each. Records come after the content they name. Numbers ascend over all segments.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "journal/compression.h"
#include "journal/crypto.h"
#include "journal/record.h"

namespace holdfast::journal {

using CellNumber = std::uint64_t;

/// The largest value that LMDB keeps on one 4096-byte page of its own.
inline constexpr std::size_t cell_size = 4080;
/// A full frame fills sixteen cells exactly.
inline constexpr std::size_t frame_plain_size = 16 * cell_size - seal_overhead;

/// How many cells a frame of so many plain bytes takes.
inline std::size_t cells_of_frame(std::size_t plain_size) { return (plain_size + seal_overhead + cell_size - 1) / cell_size; }

/// A run of consecutive content cells.
struct Extent {
  CellNumber first;
  std::uint32_t count;
};
/// Appends one cell to the runs, lengthening the last where it follows it.
void extend(std::vector<Extent>& extents, CellNumber cell);

/// Where a message's content stands in its segment.
struct ContentPlace {
  std::vector<Extent> extents;  ///< as it was written: the cells of all frames
  // In a compacted segment instead:
  std::vector<std::uint32_t> frames;  ///< the stored size of each frame
  std::uint32_t first_piece = 0;      ///< the frames, one after the other, are cut into a first piece of so many bytes,
  std::uint32_t piece_size = 0;       ///< and others of so many
  CellNumber record = 0;              ///< under whose number the pieces stand
};

/// The LMDB key of a cell; keys sort by cell number.
std::string cell_key(CellNumber cell, bool is_record);
struct CellKey {
  CellNumber cell;
  bool is_record;
};
/// The LMDB key of a piece of a compacted segment: of a message's content, or, under number 0, of the dictionary.
std::string piece_key(CellNumber record, std::uint32_t index);
/// The inverse; nothing for a key that is none. A piece has its record's number, and is none itself.
std::optional<CellKey> parse_cell_key(std::string_view key);

/// A record as stored. The sealed part holds the record's salt and encoding; it is empty once the record was erased.
struct RecordCell {
  RecordKind kind{};
  Hash commitment{};  ///< SHA-256(salt + encoded record)
  Hash link{};        ///< SHA-256(previous record's link + commitment); a compacted segment's cells leave it out
  bool is_compacted = false;
  ContentPlace content;
  std::string_view sealed;
};
std::string encode_record_cell(const RecordCell& cell);
std::optional<RecordCell> decode_record_cell(std::string_view bytes);
/// What decode_record_cell() would say of its kind; nothing of an empty one.
std::optional<RecordKind> kind_of_cell(std::string_view bytes);

/// A record, encrypted and committed to, that has no place in the log yet.
struct SealedRecord {
  RecordKind kind{};
  Hash commitment{};
  std::string sealed;
};
SealedRecord seal_record(const Key& key, RecordKind kind, std::string_view encoded);
/// The same record, with its commitment, under another key; nothing when key, tag or commitment do not fit.
std::optional<SealedRecord> move_record(const Key& from, const Key& to, const SealedRecord& record);
/// Seals a record anew for a compacted segment, with the salt that it was committed to with.
std::string seal_again(const Key& key, RecordKind kind, std::string_view salt, std::string_view encoded, const Compressor& compressor);
struct OpenedRecord {
  std::string salt, encoded;
};
/// The record with the salt that was committed to with it, or nothing when key, tag or commitment do not fit.
std::optional<OpenedRecord> open_record(const Key& key, const RecordCell& cell, const Decompressor& decompressor);

/// Seals one frame of content, ready to be cut into cells. last says whether the content ends here.
std::string seal_frame(const Key& key, const ContentId& content, std::uint32_t index, bool last, std::string_view plain);
std::optional<std::string> open_frame(const Key& key, const ContentId& content, std::uint32_t index, bool last, std::string_view sealed);
/// The same for a compacted segment.
std::string seal_packed_frame(const Key& key, const ContentId& content, std::uint32_t index, bool last, std::string_view plain,
                              const Compressor& compressor);
std::optional<std::string> open_packed_frame(const Key& key, const ContentId& content, std::uint32_t index, bool last, std::string_view sealed,
                                             const Decompressor& decompressor);

/// The associated data of a compacted segment's sealed dictionary.
inline constexpr std::string_view dictionary_label = "dictionary";

/// The link of a record that follows previous.
Hash next_link(const Hash& previous, const Hash& commitment);

}  // namespace holdfast::journal
