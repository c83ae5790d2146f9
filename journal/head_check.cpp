#include "journal/head_check.h"

#include <fmt/format.h>

#include <fstream>

namespace holdfast::journal {

HeadCheck::HeadCheck(std::string journal, const std::optional<PublicKey>& signer, Verification& all)
    : journal_(std::move(journal)), all_(all), signer_(signer) {
  for (std::uint32_t number : list_heads(journal_)) lines_.emplace(number, read_head(journal_, number));
  if (signer_) return;
  auto own = PublicKey::read(SigningKey::public_path(journal_));
  if (own) signer_ = *own;
}

void HeadCheck::check_lines(std::uint32_t newest) {
  std::string before;
  std::uint32_t last = 0;
  for (const auto& [number, line] : lines_) {
    if (!line) {
      note(number, line.error().message);
      continue;
    }
    auto head = parse_head(*line);
    if (!head || head->segment != number) {
      note(number, fmt::format("{}: the head is damaged", head_path(journal_, number)));
      continue;
    }
    if (!signer_)
      if (auto own = PublicKey::from_hex(head->key)) signer_ = *own;
    bool is_signed = signer_ && is_signed_by(*line, *signer_);
    bool is_next = before.empty() || last + 1 != number || head->before == sha256(before);
    if (!is_signed) note(number, "its head's signature is not valid, or of another key");
    if (!is_next) note(number, "its head does not continue the heads before it");
    if (number >= newest)
      note(number, "there is a head of this segment, but the segment is missing, or not as it was: the journal was rolled back to an older state");
    if (is_signed && is_next) ++all_.heads;
    before = *line;
    last = number;
    heads_[number] = std::move(*head);
  }
}

void HeadCheck::check_segment(std::uint32_t number, std::uint64_t records, const std::string& root, const std::string& link) {
  auto found = heads_.find(number);
  if (found == heads_.end()) {
    // Segments are sealed in order; the last ones may not be yet.
    bool is_overdue = !heads_.empty() && heads_.rbegin()->first > number;
    if (is_overdue) note(number, "its head is missing");
    return;
  }
  const Head& head = found->second;
  bool fits = head.records == records && to_hex(view(head.root)) == root && to_hex(view(head.last)) == link;
  if (!fits) note(number, fmt::format("it is not what its head was signed for: {} records then, {} now", head.records, records));
}

Status HeadCheck::check_published(const std::string& path) {
  if (path.empty()) return {};
  std::ifstream file(path);
  if (!file) return Error{ErrorCode::not_found, fmt::format("{}: cannot be read; it should hold published heads, one a line", path)};
  std::string line;
  while (std::getline(file, line)) {
    if (line.empty()) continue;
    auto head = parse_head(line);
    if (!head) return Error{ErrorCode::corrupt, fmt::format("{}: {}", path, head.error().message)};
    bool is_signed = signer_ && is_signed_by(line, *signer_);
    auto own = read_head(journal_, head->segment);
    if (!is_signed)
      note(head->segment, "the published head's signature is not valid, or of another key");
    else if (!own || *own != line)
      note(head->segment, "the published head is not in this journal: it was rolled back to an older state, or is another journal");
  }
  return {};
}

}  // namespace holdfast::journal
