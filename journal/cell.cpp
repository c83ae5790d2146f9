#include "journal/cell.h"

#include "journal/bytes.h"

namespace holdfast::journal {
namespace {

constexpr std::uint8_t written_format = 1, compacted_format = 2;  // cell formats
/// More than any record has.
constexpr std::size_t most_record_bytes = 64 << 20;
constexpr std::size_t salt_size = 16;

std::string record_associated(RecordKind kind, bool is_compacted) {
  ByteWriter out;
  out.raw("record");
  out.integer(static_cast<std::uint8_t>(kind));
  out.integer(is_compacted ? compacted_format : written_format);
  return out.take();
}

std::string frame_associated(std::string_view label, const ContentId& content, std::uint32_t index, bool last) {
  ByteWriter out;
  out.raw(label);
  out.raw({content.data(), content.size()});
  out.integer(index);
  out.integer(static_cast<std::uint8_t>(last));
  return out.take();
}

}  // namespace

void extend(std::vector<Extent>& extents, CellNumber cell) {
  if (!extents.empty() && extents.back().first + extents.back().count == cell)
    ++extents.back().count;
  else
    extents.push_back({cell, 1});
}

std::string cell_key(CellNumber cell, bool is_record) { return big_endian(cell << 1 | (is_record ? 1 : 0)); }

std::string piece_key(CellNumber record, std::uint32_t index) { return cell_key(record, false) + big_endian(index).substr(4); }

std::optional<CellKey> parse_cell_key(std::string_view key) {
  if (key.size() == 12 && (key[7] & 1) == 0) key.remove_suffix(4);
  if (key.size() != 8) return std::nullopt;
  std::uint64_t number = from_big_endian(key.data());
  return CellKey{number >> 1, (number & 1) != 0};
}

std::string encode_record_cell(const RecordCell& cell) {
  ByteWriter out;
  out.integer(static_cast<std::uint8_t>(cell.kind));
  out.integer(cell.is_compacted ? compacted_format : written_format);
  out.integer(static_cast<std::uint16_t>(0));
  out.raw(view(cell.commitment));
  if (cell.is_compacted) {
    if (cell.kind == RecordKind::message) {
      out.integer(cell.content.first_piece);
      out.integer(cell.content.piece_size);
      out.integer(static_cast<std::uint32_t>(cell.content.frames.size()));
      for (std::uint32_t size : cell.content.frames) out.integer(size);
    }
  } else {
    out.raw(view(cell.link));
    out.integer(static_cast<std::uint32_t>(cell.content.extents.size()));
    for (const Extent& extent : cell.content.extents) {
      out.integer(extent.first);
      out.integer(extent.count);
    }
  }
  out.raw(cell.sealed);
  return out.take();
}

std::optional<RecordCell> decode_record_cell(std::string_view bytes) {
  ByteReader in(bytes);
  RecordCell cell;
  cell.kind = static_cast<RecordKind>(in.integer<std::uint8_t>());
  auto format = in.integer<std::uint8_t>();
  if ((format != written_format && format != compacted_format) || in.integer<std::uint16_t>() != 0) return std::nullopt;
  cell.is_compacted = format == compacted_format;
  cell.commitment = in.array<Hash>();
  if (!cell.is_compacted) cell.link = in.array<Hash>();
  bool has_content = !cell.is_compacted || cell.kind == RecordKind::message;
  if (cell.is_compacted && has_content) {
    cell.content.first_piece = in.integer<std::uint32_t>();
    cell.content.piece_size = in.integer<std::uint32_t>();
  }
  auto count = has_content ? in.integer<std::uint32_t>() : 0;
  if (cell.is_compacted && count > 0 && (cell.content.first_piece == 0 || cell.content.piece_size == 0)) return std::nullopt;
  for (std::uint32_t i = 0; i < count && in.ok(); ++i) {
    if (cell.is_compacted) {
      cell.content.frames.push_back(in.integer<std::uint32_t>());
      continue;
    }
    auto first = in.integer<CellNumber>();
    auto length = in.integer<std::uint32_t>();
    if (length == 0) return std::nullopt;
    cell.content.extents.push_back({first, length});
  }
  if (!in.ok()) return std::nullopt;
  cell.sealed = in.rest();
  return cell;
}

std::optional<RecordKind> kind_of_cell(std::string_view bytes) {
  if (bytes.empty()) return std::nullopt;
  return static_cast<RecordKind>(bytes.front());
}

SealedRecord seal_record(const Key& key, RecordKind kind, std::string_view encoded) {
  std::string plain(salt_size, '\0');
  random_bytes(plain.data(), salt_size);
  plain += encoded;
  SealedRecord record{kind, sha256(plain), {}};
  seal(key, plain, record_associated(kind, false), record.sealed);
  return record;
}

std::optional<SealedRecord> move_record(const Key& from, const Key& to, const SealedRecord& record) {
  std::optional<std::string> plain = open_sealed(from, record.sealed, record_associated(record.kind, false));
  if (!plain || sha256(*plain) != record.commitment) return std::nullopt;
  SealedRecord moved{record.kind, record.commitment, {}};
  seal(to, *plain, record_associated(record.kind, false), moved.sealed);
  return moved;
}

std::string seal_again(const Key& key, RecordKind kind, std::string_view salt, std::string_view encoded, const Compressor& compressor) {
  std::string plain(salt), sealed;
  plain += compressor.pack(encoded);
  seal(key, plain, record_associated(kind, true), sealed);
  return sealed;
}

std::optional<OpenedRecord> open_record(const Key& key, const RecordCell& cell, const Decompressor& decompressor) {
  std::optional<std::string> plain = open_sealed(key, cell.sealed, record_associated(cell.kind, cell.is_compacted));
  if (!plain || plain->size() < salt_size) return std::nullopt;
  OpenedRecord record{plain->substr(0, salt_size), plain->substr(salt_size)};
  if (cell.is_compacted) {
    std::optional<std::string> encoded = decompressor.unpack(record.encoded, most_record_bytes);
    if (!encoded) return std::nullopt;
    record.encoded = std::move(*encoded);
  }
  if (sha256(record.salt, record.encoded) != cell.commitment) return std::nullopt;
  return record;
}

std::string seal_frame(const Key& key, const ContentId& content, std::uint32_t index, bool last, std::string_view plain) {
  std::string sealed;
  seal(key, plain, frame_associated("frame", content, index, last), sealed);
  return sealed;
}

std::optional<std::string> open_frame(const Key& key, const ContentId& content, std::uint32_t index, bool last, std::string_view sealed) {
  return open_sealed(key, sealed, frame_associated("frame", content, index, last));
}

std::string seal_packed_frame(const Key& key, const ContentId& content, std::uint32_t index, bool last, std::string_view plain,
                              const Compressor& compressor) {
  std::string sealed;
  seal(key, compressor.pack(plain), frame_associated("packed frame", content, index, last), sealed);
  return sealed;
}

std::optional<std::string> open_packed_frame(const Key& key, const ContentId& content, std::uint32_t index, bool last, std::string_view sealed,
                                             const Decompressor& decompressor) {
  std::optional<std::string> packed = open_sealed(key, sealed, frame_associated("packed frame", content, index, last));
  if (!packed) return std::nullopt;
  return decompressor.unpack(*packed, frame_plain_size);
}

Hash next_link(const Hash& previous, const Hash& commitment) { return sha256(view(previous), view(commitment)); }

}  // namespace holdfast::journal
