#include "journal/verify.h"

#include <fmt/format.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstring>
#include <filesystem>
#include <set>
#include <nlohmann/json.hpp>

#include "journal/catalog.h"
#include "journal/files.h"
#include "journal/head_check.h"
#include "journal/manifest.h"
#include "journal/merkle.h"
#include "journal/segment.h"

namespace holdfast::journal {
namespace {

/// Where the chain stands between two segments.
struct Chain {
  Hash link{};
  CellNumber next_cell = 0;
  bool is_known = true;  ///< false after a segment that could not be read
};

/// The check of one segment. Runs in the child process.
class SegmentCheck {
 public:
  SegmentCheck(const Segment& segment, Chain chain, bool has_key, Verification& result, std::function<void(RecordId)> on_record)
      : segment_(segment), chain_(chain), has_key_(has_key), result_(result), on_record_(std::move(on_record)) {}

  Chain run() {
    const SegmentHeader& header = segment_.header();
    if (header.follows_damage)
      note(0, "the segment before it could not be read when this one was begun, so the chain starts anew here");
    else if (chain_.is_known && header.previous_link != chain_.link)
      note(0, "it does not continue the chain of the segment before it");
    else if (chain_.is_known && header.first_cell < chain_.next_cell)
      note(0, "its numbers overlap those of the segment before it");
    chain_.link = header.previous_link;
    chain_.next_cell = header.first_cell;
    Status walked = segment_.each_record(0, [this](Segment::StoredRecord& record) {
      on_record_(record.id);
      check(record);
      return true;
    });
    if (!walked) note(0, walked.error().message);
    auto next = segment_.next_cell();
    if (next) chain_.next_cell = *next;
    chain_.is_known = true;
    return chain_;
  }

  /// Entries up to this record are counted apart.
  void count_to(RecordId indexed) { indexed_ = indexed; }
  std::uint64_t entries_to_index() const { return indexed_entries_; }
  const std::set<RecordId>& erased() const { return erased_; }
  const std::vector<RecordId>& announced() const { return announced_; }
  const std::vector<std::uint32_t>& pruned() const { return pruned_; }
  Hash root() { return MerkleTree(std::move(leaves_)).root(); }

 private:
  void note(RecordId record, const std::string& what) {
    result_.findings.push_back({segment_.header().number, record, what});
  }

  void check(Segment::StoredRecord& record) {
    ++result_.records;
    if (record.id < chain_.next_cell) note(record.id, "its number is out of order");
    chain_.next_cell = record.id + 1;
    // A compacted segment's links are not stored: its head tells whether they are right.
    chain_.link = next_link(chain_.link, record.commitment);
    bool is_continued = segment_.header().is_compacted || chain_.link == record.link;
    if (!is_continued) note(record.id, "it does not continue the chain");
    if (!is_continued) chain_.link = record.link;
    leaves_.push_back(leaf_hash(view(record.commitment)));
    if (record.kind == RecordKind::message) {
      ++result_.entries;
      indexed_entries_ += record.id <= indexed_;
    }
    if (!has_key_) return;
    if (record.is_erased) return erased_.insert(record.id), void();
    if (!record.damage.empty()) return note(record.id, record.damage);
    if (record.kind == RecordKind::erasure) return check_erasure(record);
    if (record.kind == RecordKind::message) return check_message(record);
    if (record.kind == RecordKind::outcome && !decode_outcome(record.encoded)) note(record.id, "the outcome cannot be decoded");
  }

  void check_erasure(const Segment::StoredRecord& record) {
    std::optional<ErasureRecord> erasure = decode_erasure(record.encoded);
    if (!erasure) return note(record.id, "the erasure record cannot be decoded");
    announced_.insert(announced_.end(), erasure->records.begin(), erasure->records.end());
    if (auto segment = pruned_segment(*erasure)) pruned_.push_back(*segment);
  }

  void check_message(const Segment::StoredRecord& record) {
    std::optional<MessageRecord> message = decode_message(record.encoded);
    if (!message) return note(record.id, "the message record cannot be decoded");
    Sha256 hash;
    std::uint64_t size = 0;
    Status read = segment_.content(*message, record.content, [&](std::string_view piece) {
      hash.update(piece);
      size += piece.size();
      return true;
    });
    result_.content_bytes += size;
    if (!read) return note(record.id, read.error().message);
    if (size != message->size) return note(record.id, "the content's size is not the recorded one");
    if (hash.finish() != message->content_hash) note(record.id, "the content's SHA-256 is not the recorded one");
  }

  const Segment& segment_;
  Chain chain_;
  bool has_key_;
  Verification& result_;
  std::function<void(RecordId)> on_record_;
  std::vector<Hash> leaves_;
  std::set<RecordId> erased_;          ///< records of which only the commitment is left
  std::vector<RecordId> announced_;    ///< records of which an erasure record says that they were erased
  std::vector<std::uint32_t> pruned_;  ///< segments of which a record says that they were taken away
  RecordId indexed_ = 0;
  std::uint64_t indexed_entries_ = 0;
};

/// How far the catalog has come, and how many entries it has up to there.
struct CatalogState {
  bool is_known = false;
  std::string problem;
  RecordId position = 0;
  std::uint64_t entries = 0;
};

CatalogState look_at_catalog(const std::string& journal, const KeyRing& keys) {
  CatalogState state;
  auto catalog = Catalog::open(journal, keys.base_key(), Environment::Mode::read);
  if (!catalog) {
    state.problem = catalog.error().message;
    return state;
  }
  // The daemon may be moving it on at this moment: two looks must agree.
  for (int look = 0; look < 100 && !state.is_known; ++look) {
    auto position = (*catalog)->position();
    auto entries = (*catalog)->entries();
    auto again = (*catalog)->position();
    if (!position || !entries || !again) {
      state.problem = (!position ? position.error() : !entries ? entries.error() : again.error()).message;
      return state;
    }
    state.is_known = *position == *again;
    state.position = *position;
    state.entries = *entries;
  }
  return state;
}

/// The catalog knows as many entries as the segments have, but for those that it has not come to yet.
void check_catalog(const CatalogState& catalog, std::uint64_t entries, Verification& all) {
  if (!catalog.problem.empty())
    all.findings.push_back({0, 0, catalog.problem + "; run: holdfast journal rebuild"});
  else if (catalog.is_known && catalog.entries != entries)
    all.findings.push_back({0, 0, fmt::format("the catalog has {} entries where the segments have {}; run: holdfast journal rebuild", catalog.entries, entries)});
}

/// What the child tells the parent at its end, as one line of JSON.
nlohmann::json report(const Verification& result, const Chain& chain, const Hash& root) {
  nlohmann::json findings = nlohmann::json::array();
  for (const Finding& finding : result.findings) findings.push_back({finding.segment, finding.record, finding.what});
  return {{"records", result.records}, {"entries", result.entries}, {"content_bytes", result.content_bytes},
          {"findings", findings},      {"link", to_hex(view(chain.link))}, {"next_cell", chain.next_cell},
          {"is_known", chain.is_known}, {"root", to_hex(view(root))}};
}

[[noreturn]] void run_child(const std::string& journal, std::uint32_t number, const std::optional<KeyRing>& keys, Chain chain, RecordId indexed, int out) {
  // The parent tells of a crash; no core file and no message besides.
  Verification result;
  auto send = [out](const std::string& line) {
    std::string_view left = line;
    while (!left.empty()) {
      ssize_t sent = ::write(out, left.data(), left.size());
      if (sent < 0 && errno == EINTR) continue;
      if (sent <= 0) ::_exit(1);
      left.remove_prefix(static_cast<std::size_t>(sent));
    }
  };
  auto segment = keys ? Segment::open(journal, number, *keys, Environment::Mode::read) : Segment::open_without_key(journal, number);
  if (!segment) {
    result.findings.push_back({number, 0, segment.error().message});
    chain.is_known = false;
    send(report(result, chain, {}).dump() + "\n");
    ::_exit(0);
  }
  std::uint64_t counter = 0;
  SegmentCheck check(**segment, chain, keys.has_value(), result, [&](RecordId id) {
    if (counter++ % 64 == 0) send(fmt::format("at {} {}\n", id, result.content_bytes));
  });
  check.count_to(indexed);
  chain = check.run();
  nlohmann::json last = report(result, chain, check.root());
  last["indexed_entries"] = check.entries_to_index();
  last["erased"] = check.erased();
  last["announced"] = check.announced();
  last["pruned"] = check.pruned();
  send(last.dump() + "\n");
  ::_exit(0);
}

/// Segments that ended before the time; the last one never does.
std::size_t segments_before(const std::string& journal, const std::vector<std::uint32_t>& numbers, std::int64_t since_us) {
  std::size_t count = 0;
  while (since_us > 0 && count + 1 < numbers.size()) {
    auto next = Segment::open_without_key(journal, numbers[count + 1]);
    if (!next || (*next)->header().created_us > since_us) break;
    ++count;
  }
  return count;
}

}  // namespace

Result<Verification> verify(const std::string& journal, const VerifyOptions& options,
                            const std::function<void(const VerifyProgress&)>& on_progress) {
  std::optional<KeyRing> keys;
  if (options.key) {
    auto ring = KeyRing::open(journal, *options.key);
    if (!ring) return ring.error();
    keys = *ring;
  }
  Verification all;
  HeadCheck heads(journal, options.signer, all);
  // First: what it knows by now is in segments that are listed after it.
  CatalogState catalog;
  if (keys) catalog = look_at_catalog(journal, *keys);
  auto numbers = list_segments(journal);
  if (!numbers) return numbers.error();
  heads.check_lines(numbers->empty() ? 0 : numbers->back());
  if (Status read = heads.check_published(options.heads_path); !read) return read.error();

  std::size_t skipped = segments_before(journal, *numbers, options.since_us);
  bool has_all = skipped == 0 && !numbers->empty() && numbers->front() == 1;
  numbers->erase(numbers->begin(), numbers->begin() + static_cast<std::ptrdiff_t>(skipped));
  VerifyProgress progress{0, 0};
  std::vector<std::uint64_t> sizes;
  for (std::uint32_t number : *numbers) {
    std::error_code ignored;
    sizes.push_back(std::filesystem::file_size(segment_path(journal, number), ignored));
    progress.bytes_total += sizes.back();
  }
  std::uint64_t indexed_entries = 0;
  std::vector<std::pair<std::uint32_t, RecordId>> erased;
  std::set<RecordId> announced;
  std::set<std::uint32_t> pruned;
  Chain chain;
  const std::uint32_t begin = numbers->empty() ? 0 : numbers->front();
  std::uint32_t expected = begin, first = begin;  // the first that is there, as far as it is known
  for (std::size_t i = 0; i < numbers->size(); ++i) {
    std::uint32_t number = (*numbers)[i];
    if (i == 0 && number != 1) chain.is_known = false;  // older segments have gone by retention, or are left out
    for (; expected < number; ++expected) {
      all.findings.push_back({expected, 0, "the segment is missing"});
      chain.is_known = false;
    }
    ++expected;
    int pipe_ends[2];
    if (::pipe(pipe_ends) != 0) return Error{ErrorCode::io, fmt::format("cannot make a pipe: {}", std::strerror(errno))};
    FileDescriptor in(pipe_ends[0]), out(pipe_ends[1]);
    pid_t child = ::fork();
    if (child < 0) return Error{ErrorCode::io, fmt::format("cannot start a process: {}", std::strerror(errno))};
    if (child == 0) {
      in.reset();
      for (int crash : {SIGSEGV, SIGBUS, SIGABRT, SIGFPE}) std::signal(crash, SIG_DFL);
      run_child(journal, number, keys, chain, catalog.position, out.get());
    }
    out.reset();
    // Meanwhile, on another core: the bytes.
    if (heads.has(number)) {
      std::vector<std::string> problems = check_manifest(journal, number, heads.signer(), {});
      // The segment may be rewritten at this moment: a second look tells.
      if (!problems.empty()) problems = check_manifest(journal, number, heads.signer(), {});
      for (const std::string& problem : problems) all.findings.push_back({number, 0, problem});
    }
    std::string pending, final_line;
    RecordId last_record = 0;
    char buffer[65536];
    for (;;) {
      ssize_t size = ::read(in.get(), buffer, sizeof buffer);
      if (size < 0 && errno == EINTR) continue;
      if (size <= 0) break;
      pending.append(buffer, static_cast<std::size_t>(size));
      for (std::size_t end; (end = pending.find('\n')) != std::string::npos; pending.erase(0, end + 1)) {
        std::string line = pending.substr(0, end);
        unsigned long long id = 0, bytes = 0;
        if (std::sscanf(line.c_str(), "at %llu %llu", &id, &bytes) != 2) {
          final_line = std::move(line);
          continue;
        }
        last_record = id;
        if (on_progress) on_progress({progress.bytes_done + std::min<std::uint64_t>(bytes, sizes[i]), progress.bytes_total});
      }
    }
    int status = 0;
    while (::waitpid(child, &status, 0) < 0 && errno == EINTR) continue;
    ++all.segments;
    progress.bytes_done += sizes[i];
    if (on_progress) on_progress(progress);
    nlohmann::json result = nlohmann::json::parse(final_line, nullptr, false);
    auto has_gone = [&](std::uint32_t one) {
      std::error_code ignored;
      return !std::filesystem::exists(segment_path(journal, one), ignored);
    };
    bool is_pruned = std::all_of(numbers->begin(), numbers->begin() + static_cast<std::ptrdiff_t>(i) + 1, has_gone);
    if (is_pruned) {  // by retention, since the segments were listed: whether that is on record, says the end
      first = i + 1 < numbers->size() ? (*numbers)[i + 1] : 0;
      std::erase_if(all.findings, [&](const Finding& finding) { return finding.segment == number; });
      chain.is_known = has_all = false;
      continue;
    }
    if (result.is_discarded()) {
      std::string how = WIFSIGNALED(status) ? fmt::format("signal {}", WTERMSIG(status)) : "an early end";
      all.findings.push_back({number, 0, fmt::format("{}: reading it failed with {} at or after record {}: its pages are damaged",
                                                     segment_path(journal, number), how, last_record)});
      chain.is_known = false;
      continue;
    }
    all.records += result["records"].get<std::uint64_t>();
    all.entries += result["entries"].get<std::uint64_t>();
    for (const auto& id : result.value("erased", nlohmann::json::array())) erased.emplace_back(number, id.get<RecordId>());
    for (const auto& id : result.value("announced", nlohmann::json::array())) announced.insert(id.get<RecordId>());
    for (const auto& one : result.value("pruned", nlohmann::json::array())) pruned.insert(one.get<std::uint32_t>());
    indexed_entries += result.value("indexed_entries", std::uint64_t{0});
    all.content_bytes += result["content_bytes"].get<std::uint64_t>();
    for (const auto& finding : result["findings"])
      all.findings.push_back({finding[0].get<std::uint32_t>(), finding[1].get<std::uint64_t>(), finding[2].get<std::string>()});
    bool is_readable = result["is_known"].get<bool>();
    std::string link = result["link"].get<std::string>();
    if (is_readable) heads.check_segment(number, result["records"].get<std::uint64_t>(), result["root"].get<std::string>(), link);
    std::string link_bytes = from_hex(link).value_or(std::string(32, '\0'));
    std::memcpy(chain.link.data(), link_bytes.data(), chain.link.size());
    chain.next_cell = result["next_cell"].get<CellNumber>();
    chain.is_known = is_readable;
  }
  // The erasure record comes after what it erases: it is there whatever was pruned. One that is being carried out now may stand in a
  // segment that was begun since.
  auto later = list_segments(journal);
  bool has_grown = later && !later->empty() && !numbers->empty() && later->back() > numbers->back();
  for (const auto& [number, id] : erased)
    if (keys && !has_grown && announced.count(id) == 0)
      all.findings.push_back({number, id, "it was erased, but there is no erasure record of it"});
  // The record of the last segment that was taken away stands in one that is still there.
  bool lacks_begin = skipped == 0 && first > 1, is_later = first != begin && has_grown;
  if (keys && lacks_begin && !is_later && pruned.count(first - 1) == 0)
    all.findings.push_back({first - 1, 0, "the segment and all before it are missing, and there is no record that they were pruned"});
  all.erased = erased.size();
  all.last_link = to_hex(view(chain.link));
  if (keys && has_all && all.findings.empty()) check_catalog(catalog, indexed_entries, all);
  return all;
}

}  // namespace holdfast::journal
