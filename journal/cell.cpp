#include "journal/cell.h"

#include <cstring>

#include "journal/bytes.h"

namespace holdfast::journal {
namespace {

constexpr std::uint8_t cell_format = 1;
constexpr std::size_t salt_size = 16;

std::string record_associated(RecordKind kind) {
  ByteWriter out;
  out.raw("record");
  out.integer(static_cast<std::uint8_t>(kind));
  out.integer(cell_format);
  return out.take();
}

std::string frame_associated(const ContentId& content, std::uint32_t index, bool last) {
  ByteWriter out;
  out.raw("frame");
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

std::optional<CellKey> parse_cell_key(std::string_view key) {
  if (key.size() != 8) return std::nullopt;
  std::uint64_t number = from_big_endian(key.data());
  return CellKey{number >> 1, (number & 1) != 0};
}

std::string encode_record_cell(const RecordCell& cell) {
  ByteWriter out;
  out.integer(static_cast<std::uint8_t>(cell.kind));
  out.integer(cell_format);
  out.integer(static_cast<std::uint16_t>(0));
  out.raw(view(cell.commitment));
  out.raw(view(cell.link));
  out.integer(static_cast<std::uint32_t>(cell.extents.size()));
  for (const Extent& extent : cell.extents) {
    out.integer(extent.first);
    out.integer(extent.count);
  }
  out.raw(cell.sealed);
  return out.take();
}

std::optional<RecordCell> decode_record_cell(std::string_view bytes) {
  ByteReader in(bytes);
  RecordCell cell;
  cell.kind = static_cast<RecordKind>(in.integer<std::uint8_t>());
  if (in.integer<std::uint8_t>() != cell_format || in.integer<std::uint16_t>() != 0) return std::nullopt;
  std::string_view commitment = in.raw(cell.commitment.size());
  std::string_view link = in.raw(cell.link.size());
  auto count = in.integer<std::uint32_t>();
  for (std::uint32_t i = 0; i < count && in.ok(); ++i) {
    auto first = in.integer<CellNumber>();
    auto length = in.integer<std::uint32_t>();
    if (length == 0) return std::nullopt;
    cell.extents.push_back({first, length});
  }
  if (!in.ok()) return std::nullopt;
  std::memcpy(cell.commitment.data(), commitment.data(), commitment.size());
  std::memcpy(cell.link.data(), link.data(), link.size());
  cell.sealed = in.rest();
  return cell;
}

SealedRecord seal_record(const Key& key, RecordKind kind, std::string_view encoded) {
  std::string plain(salt_size, '\0');
  random_bytes(plain.data(), salt_size);
  plain += encoded;
  SealedRecord record{kind, sha256(plain), {}};
  seal(key, plain, record_associated(kind), record.sealed);
  return record;
}

std::string seal_again(const Key& key, RecordKind kind, std::string_view salt, std::string_view encoded) {
  std::string plain(salt), sealed;
  plain += encoded;
  seal(key, plain, record_associated(kind), sealed);
  return sealed;
}

std::optional<OpenedRecord> open_record(const Key& key, const RecordCell& cell) {
  std::optional<std::string> plain = open_sealed(key, cell.sealed, record_associated(cell.kind));
  if (!plain || plain->size() < salt_size || sha256(*plain) != cell.commitment) return std::nullopt;
  return OpenedRecord{plain->substr(0, salt_size), plain->substr(salt_size)};
}

std::string seal_frame(const Key& key, const ContentId& content, std::uint32_t index, bool last, std::string_view plain) {
  std::string sealed;
  seal(key, plain, frame_associated(content, index, last), sealed);
  return sealed;
}

std::optional<std::string> open_frame(const Key& key, const ContentId& content, std::uint32_t index, bool last,
                                      std::string_view sealed) {
  return open_sealed(key, sealed, frame_associated(content, index, last));
}

Hash next_link(const Hash& previous, const Hash& commitment) { return sha256(view(previous), view(commitment)); }

}  // namespace holdfast::journal
