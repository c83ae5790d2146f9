#include "journal/proof.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "journal/bytes.h"
#include "journal/merkle.h"

namespace holdfast::journal {
namespace {

constexpr const char* format = "holdfast-proof-1";

std::string bytes_at(const nlohmann::json& json) {
  std::optional<std::string> bytes = from_hex(json.get<std::string>());
  if (!bytes) throw nlohmann::json::other_error::create(500, "not hexadecimal", nullptr);
  return *bytes;
}

Error invalid(const std::string& why) { return {ErrorCode::corrupt, "the proof does not hold: " + why}; }

}  // namespace

Result<std::string> make_proof(const std::string& journal, const Segment& segment, RecordId entry) {
  auto line = read_head(journal, segment.header().number);
  if (!line && line.error().code == ErrorCode::not_found)
    return Error{ErrorCode::not_found,
                 fmt::format("entry {} is in segment {}, which is not sealed yet; run: holdfast journal seal", entry, segment.header().number)};
  if (!line) return line.error();
  std::vector<Hash> leaves;
  std::optional<Segment::StoredRecord> found;
  std::uint64_t index = 0;
  Status walked = segment.each_record(0, [&](Segment::StoredRecord& record) {
    if (record.id == entry && record.kind == RecordKind::message) {
      index = leaves.size();
      found = record;
    }
    leaves.push_back(leaf_hash(view(record.commitment)));
    return true;
  });
  if (!walked) return walked.error();
  if (!found) return Error{ErrorCode::not_found, fmt::format("there is no entry {} in this journal", entry)};
  if (found->is_erased) return Error{ErrorCode::not_found, fmt::format("entry {} was erased: nothing can be proven of it any more", entry)};
  if (!found->damage.empty()) return Error{ErrorCode::corrupt, fmt::format("entry {} is damaged: {}", entry, found->damage)};
  MerkleTree tree(std::move(leaves));
  auto head = parse_head(*line);
  if (!head) return head.error();
  if (tree.root() != head->root)
    return Error{ErrorCode::corrupt, fmt::format("segment {} is not what its head says; run: holdfast journal verify", head->segment)};
  nlohmann::ordered_json path = nlohmann::ordered_json::array();
  for (const Hash& hash : tree.path(index)) path.push_back(to_hex(view(hash)));
  nlohmann::ordered_json proof = {
      {"format", format}, {"entry", entry}, {"record", to_hex(found->encoded)}, {"salt", to_hex(found->salt)}, {"index", index},
      {"path", path},     {"head", *line}};
  return proof.dump(1) + "\n";
}

Result<ProvenEntry> check_proof(const std::string& text, const PublicKey* key) {
  std::string line, record, salt;
  std::vector<Hash> path;
  ProvenEntry proven;
  try {
    nlohmann::json proof = nlohmann::json::parse(text);
    if (proof.at("format") != format) return invalid("it is no file of the format " + std::string(format));
    line = proof.at("head").get<std::string>();
    record = bytes_at(proof.at("record"));
    salt = bytes_at(proof.at("salt"));
    if (!proof.at("index").is_number_unsigned()) return invalid("its index is no whole number");
    proven.index = proof["index"].get<std::uint64_t>();
    for (const auto& one : proof.at("path")) {
      std::string bytes = bytes_at(one);
      if (bytes.size() != sizeof(Hash)) return invalid("its path is damaged");
      path.push_back(ByteReader(bytes).array<Hash>());
    }
  } catch (const nlohmann::json::exception&) {
    return invalid("it is no file of the format " + std::string(format));
  }
  auto head = parse_head(line);
  if (!head) return invalid(head.error().message);
  auto own_key = PublicKey::from_hex(head->key);
  const PublicKey* signer = key ? key : own_key ? &*own_key : nullptr;
  if (!signer || !is_signed_by(line, *signer)) return invalid(key ? "the head is not signed with this key" : "the head's signature is not valid");
  if (salt.size() != 16) return invalid("its salt is damaged");
  Hash commitment = sha256(salt, record);
  std::optional<Hash> root = root_of_path(leaf_hash(view(commitment)), proven.index, head->records, path);
  if (!root || *root != head->root) return invalid("the record is not in the tree that the head was signed for");
  std::optional<MessageRecord> message = decode_message(record);
  if (!message) return invalid("the record is no message");
  proven.message = std::move(*message);
  proven.head = std::move(*head);
  return proven;
}

}  // namespace holdfast::journal
