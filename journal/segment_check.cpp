#include "journal/segment_check.h"

#include <fmt/format.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <iterator>
#include <nlohmann/json.hpp>
#include <utility>

#include "journal/bytes.h"
#include "journal/files.h"
#include "journal/idle_work.h"
#include "journal/merkle.h"
#include "journal/segment.h"
#include "journal/sha256_lanes.h"

namespace holdfast::journal {
namespace {

/// The check itself. Runs in the child process.
class SegmentCheck {
 public:
  /// @param report  what is found goes into it; its chain is where the chain stands before the segment
  SegmentCheck(const Segment& segment, bool has_key, RecordId indexed, SegmentReport& report, std::function<void(RecordId)> on_record)
      : segment_(segment), has_key_(has_key), indexed_(indexed), report_(report), on_record_(std::move(on_record)) {}

  void run() {
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
    check_hashes();
    if (!walked) note(0, walked.error().message);
    auto next = segment_.next_cell();
    if (next) chain_.next_cell = *next;
    chain_.is_known = true;
    report_.root = MerkleTree(std::move(leaves_)).root();
  }

 private:
  void note(RecordId record, const std::string& what) {
    check_hashes();  // findings come in the order of the log
    report_.findings.push_back({segment_.header().number, record, what});
  }

  void check(Segment::StoredRecord& record) {
    ++report_.records;
    if (record.id < chain_.next_cell) note(record.id, "its number is out of order");
    chain_.next_cell = record.id + 1;
    // A compacted segment's links are not stored: its head tells whether they are right.
    chain_.link = next_link(chain_.link, record.commitment);
    bool is_continued = segment_.header().is_compacted || chain_.link == record.link;
    if (!is_continued) note(record.id, "it does not continue the chain");
    if (!is_continued) chain_.link = record.link;
    leaves_.push_back(leaf_hash(view(record.commitment)));
    if (record.kind == RecordKind::message) {
      ++report_.entries;
      report_.indexed_entries += record.id <= indexed_;
    }
    if (!has_key_) return;
    if (record.is_erased) return report_.erased.push_back(record.id);
    if (!record.damage.empty()) return note(record.id, record.damage);
    if (record.kind == RecordKind::erasure) return check_erasure(record);
    if (record.kind == RecordKind::message) return check_message(record);
    if (record.kind == RecordKind::outcome && !decode_outcome(record.encoded)) note(record.id, "the outcome cannot be decoded");
  }

  void check_erasure(const Segment::StoredRecord& record) {
    std::optional<ErasureRecord> erasure = decode_erasure(record.encoded);
    if (!erasure) return note(record.id, "the erasure record cannot be decoded");
    report_.announced.insert(report_.announced.end(), erasure->records.begin(), erasure->records.end());
    if (auto segment = pruned_segment(*erasure)) report_.pruned.push_back(*segment);
    if (auto segment = emptied_segment(*erasure)) report_.emptied.push_back(*segment);
  }

  void check_message(const Segment::StoredRecord& record) {
    std::optional<MessageRecord> message = decode_message(record.encoded);
    if (!message) return note(record.id, "the message record cannot be decoded");
    Unhashed content{record.id, message->content_hash, {}, {}};
    std::uint64_t size = 0;
    Status read = segment_.content(*message, record.content, [&](std::string_view piece) {
      size += piece.size();
      content.bytes += piece;
      if (content.bytes.size() >= most_unhashed) {
        feed(std::array{Sha256Piece{&content.stream, content.bytes}});
        content.bytes.clear();
      }
      return true;
    });
    report_.content_bytes += size;
    if (!read) return note(record.id, read.error().message);
    if (size != message->size) return note(record.id, "the content's size is not the recorded one");
    unhashed_bytes_ += content.bytes.size();
    unhashed_.push_back(std::move(content));
    if (unhashed_.size() >= most_at_once || unhashed_bytes_ >= most_unhashed) check_hashes();
  }

  /// Hashes all contents that have waited for company.
  void check_hashes() {
    std::vector<Unhashed> contents = std::exchange(unhashed_, {});
    unhashed_bytes_ = 0;
    std::vector<Hash> hashes(contents.size());
    std::vector<Sha256Piece> pieces;
    for (std::size_t i = 0; i < contents.size(); ++i) pieces.push_back({&contents[i].stream, contents[i].bytes, &hashes[i]});
    feed(pieces);
    for (std::size_t i = 0; i < contents.size(); ++i)
      if (hashes[i] != contents[i].expected)
        report_.findings.push_back({segment_.header().number, contents[i].record, "the content's SHA-256 is not the recorded one"});
  }

  /// A content that waits for others: they are hashed side by side.
  struct Unhashed {
    RecordId record;
    Hash expected;
    Sha256Stream stream;  ///< of what is no more in bytes
    std::string bytes;
  };
  static constexpr std::size_t most_at_once = 64, most_unhashed = 32 << 20;

  const Segment& segment_;
  const bool has_key_;
  const RecordId indexed_;
  SegmentReport& report_;
  Chain& chain_ = report_.chain;
  std::function<void(RecordId)> on_record_;
  std::vector<Hash> leaves_;
  std::vector<Unhashed> unhashed_;
  std::size_t unhashed_bytes_ = 0;
};

/// What the child tells the parent at its end, as one line of JSON.
nlohmann::json to_json(const SegmentReport& report) {
  nlohmann::json findings = nlohmann::json::array();
  for (const Finding& finding : report.findings) findings.push_back({finding.segment, finding.record, finding.what});
  return {{"link", to_hex(view(report.chain.link))},
          {"next_cell", report.chain.next_cell},
          {"is_known", report.chain.is_known},
          {"root", to_hex(view(report.root))},
          {"records", report.records},
          {"entries", report.entries},
          {"content_bytes", report.content_bytes},
          {"indexed_entries", report.indexed_entries},
          {"erased", report.erased},
          {"announced", report.announced},
          {"pruned", report.pruned},
          {"emptied", report.emptied},
          {"findings", findings}};
}

Hash hash_from(const nlohmann::json& hex) {
  const std::string bytes = from_hex(hex.get<std::string>()).value_or("");
  return ByteReader(bytes).array<Hash>();
}

SegmentReport report_from(const nlohmann::json& line) {
  SegmentReport report;
  report.chain = {hash_from(line["link"]), line["next_cell"].get<CellNumber>(), line["is_known"].get<bool>()};
  report.root = hash_from(line["root"]);
  line["records"].get_to(report.records);
  line["entries"].get_to(report.entries);
  line["content_bytes"].get_to(report.content_bytes);
  line["indexed_entries"].get_to(report.indexed_entries);
  line["erased"].get_to(report.erased);
  line["announced"].get_to(report.announced);
  line["pruned"].get_to(report.pruned);
  line["emptied"].get_to(report.emptied);
  for (const auto& finding : line["findings"])
    report.findings.push_back({finding[0].get<std::uint32_t>(), finding[1].get<std::uint64_t>(), finding[2].get<std::string>()});
  return report;
}

/// What keeps a segment from being read says nothing about the segment.
bool is_about_the_machine(const Error& error) {
  return error.code == ErrorCode::unavailable || error.code == ErrorCode::busy || error.code == ErrorCode::no_space ||
         error.code == ErrorCode::permission;
}

constexpr int crashes[] = {SIGSEGV, SIGBUS, SIGABRT, SIGFPE};

[[noreturn]] void run_child(const std::string& journal, std::uint32_t number, const std::optional<KeyRing>& keys, const Chain& before,
                            RecordId indexed, int out) {
  auto send = [out](const std::string& line) {
    if (!write_all(out, line)) ::_exit(1);
  };
  SegmentReport report;
  report.chain = before;
  auto segment = keys ? Segment::open(journal, number, *keys, Environment::Mode::read) : Segment::open_without_key(journal, number);
  if (segment) {
    IdleWork idle;
    std::uint64_t counter = 0;
    SegmentCheck(**segment, keys.has_value(), indexed, report, [&](RecordId id) {
      idle.step();
      if (counter++ % 64 == 0) send(fmt::format("at {} {}\n", id, report.content_bytes));
    }).run();
  } else if (is_about_the_machine(segment.error())) {
    send(nlohmann::json{{"error", segment.error().message}, {"code", segment.error().code}}.dump() + "\n");
    ::_exit(0);
  } else {
    report.findings.push_back({number, 0, segment.error().message});
    report.chain.is_known = false;
  }
  send(to_json(report).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n");
  ::_exit(0);
}

}  // namespace

Result<SegmentReport> check_segment(const std::string& journal, std::uint32_t number, const std::optional<KeyRing>& keys, const Chain& before,
                                    RecordId indexed, const std::function<void(std::uint64_t)>& on_bytes, const std::function<void()>& meanwhile) {
  int pipe_ends[2];
  if (::pipe(pipe_ends) != 0) return Error{ErrorCode::io, fmt::format("cannot make a pipe: {}", std::strerror(errno))};
  FileDescriptor in(pipe_ends[0]), out(pipe_ends[1]);
  pid_t child = ::fork();
  if (child < 0) return Error{ErrorCode::io, fmt::format("cannot start a process: {}", std::strerror(errno))};
  if (child == 0) {
    in.reset();
    // The parent tells of a crash.
    for (int crash : crashes) std::signal(crash, SIG_DFL);
    run_child(journal, number, keys, before, indexed, out.get());
  }
  out.reset();
  meanwhile();
  std::string pending, last_line;
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
        last_line = std::move(line);
        continue;
      }
      last_record = id;
      on_bytes(bytes);
    }
  }
  int status = 0;
  while (::waitpid(child, &status, 0) < 0 && errno == EINTR) continue;
  nlohmann::json told = nlohmann::json::parse(last_line, nullptr, false);
  if (told.contains("error")) return Error{told["code"].get<ErrorCode>(), told["error"].get<std::string>()};
  if (!told.is_discarded()) return report_from(told);
  bool was_killed = WIFSIGNALED(status) && std::find(std::begin(crashes), std::end(crashes), WTERMSIG(status)) == std::end(crashes);
  if (was_killed)
    return Error{ErrorCode::unavailable,
                 fmt::format("{}: the process that read it was ended by signal {}, as when the machine has no memory left; run this again",
                             segment_path(journal, number), WTERMSIG(status))};
  SegmentReport report;
  report.chain = before;
  report.chain.is_known = false;
  std::string how = WIFSIGNALED(status) ? fmt::format("signal {}", WTERMSIG(status)) : "an early end";
  report.findings.push_back(
      {number, 0,
       fmt::format("{}: reading it failed with {} at or after record {}: its pages are damaged", segment_path(journal, number), how, last_record)});
  return report;
}

}  // namespace holdfast::journal
