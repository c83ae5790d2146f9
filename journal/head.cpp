#include "journal/head.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <fstream>
#include <map>
#include <sstream>

#include "journal/bytes.h"
#include "journal/files.h"

namespace holdfast::journal {
namespace {

constexpr std::string_view head_magic = "holdfast-head-1";

bool read_number(const std::string& text, std::uint64_t& number) {
  auto [end, problem] = std::from_chars(text.data(), text.data() + text.size(), number);
  return problem == std::errc() && end == text.data() + text.size();
}

bool read_hash(const std::string& text, Hash& hash) {
  std::optional<std::string> bytes = from_hex(text);
  if (!bytes || bytes->size() != hash.size()) return false;
  hash = ByteReader(*bytes).array<Hash>();
  return true;
}

}  // namespace

std::string sign_head(Head& head, const SigningKey& key) {
  head.key = key.public_key().hex();
  std::string line = fmt::format("{} segment={} first={} records={} previous={} last={} root={} time={} before={} key={}", head_magic, head.segment,
                                 head.first, head.records, to_hex(view(head.previous)), to_hex(view(head.last)), to_hex(view(head.root)),
                                 head.time_us, to_hex(view(head.before)), head.key);
  head.signature = to_hex(key.sign(line));
  return line + " signature=" + head.signature;
}

Result<Head> parse_head(std::string_view line) {
  std::istringstream words{std::string(line)};
  std::string word;
  Error damaged{ErrorCode::corrupt, "this is no head; it should be one line that begins with " + std::string(head_magic)};
  if (!(words >> word) || word != head_magic) return damaged;
  std::map<std::string, std::string> fields;
  while (words >> word) {
    std::size_t equals = word.find('=');
    if (equals == std::string::npos || !fields.emplace(word.substr(0, equals), word.substr(equals + 1)).second) return damaged;
  }
  Head head;
  std::uint64_t segment = 0, time = 0;
  bool is_whole = fields.size() == 10 && read_number(fields["segment"], segment) && segment <= UINT32_MAX &&
                  read_number(fields["first"], head.first) && read_number(fields["records"], head.records) &&
                  read_hash(fields["previous"], head.previous) && read_hash(fields["last"], head.last) && read_hash(fields["root"], head.root) &&
                  read_number(fields["time"], time) && read_hash(fields["before"], head.before);
  if (!is_whole) return damaged;
  head.segment = static_cast<std::uint32_t>(segment);
  head.time_us = static_cast<std::int64_t>(time);
  head.key = fields["key"];
  head.signature = fields["signature"];
  return head;
}

bool is_signed_by(std::string_view line, const PublicKey& key) {
  constexpr std::string_view mark = " signature=";
  std::size_t end = line.rfind(mark);
  if (end == std::string_view::npos) return false;
  std::optional<std::string> signature = from_hex(line.substr(end + mark.size()));
  // One signature has one spelling.
  bool is_canonical = signature && to_hex(*signature) == line.substr(end + mark.size());
  return is_canonical && key.verifies(line.substr(0, end), *signature);
}

std::string head_folder(const std::string& journal) { return journal + "/heads"; }

std::string head_path(const std::string& journal, std::uint32_t segment) { return fmt::format("{}/{:010}.head", head_folder(journal), segment); }

Result<std::string> read_head(const std::string& journal, std::uint32_t segment) {
  std::string path = head_path(journal, segment), line;
  std::ifstream file(path);
  if (!file) return Error{ErrorCode::not_found, fmt::format("{}: segment {} has no head; it is not sealed yet", path, segment)};
  if (!std::getline(file, line)) return Error{ErrorCode::corrupt, path + ": is empty"};
  return line;
}

std::vector<std::uint32_t> list_heads(const std::string& journal) {
  std::vector<std::uint32_t> numbers;
  std::error_code failure;
  for (const auto& file : std::filesystem::directory_iterator(head_folder(journal), failure)) {
    std::string name = file.path().filename().string();
    std::uint32_t number = 0;
    auto [end, problem] = std::from_chars(name.data(), name.data() + name.size(), number);
    if (problem == std::errc() && std::string_view(end) == ".head") numbers.push_back(number);
  }
  std::sort(numbers.begin(), numbers.end());
  return numbers;
}

Status write_head(const std::string& journal, std::uint32_t segment, const std::string& line) {
  if (Status made = make_folder(head_folder(journal)); !made) return made;
  return write_file(head_path(journal, segment), line + "\n");
}

}  // namespace holdfast::journal
