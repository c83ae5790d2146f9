#include "journal/verify.h"

#include <fmt/format.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstring>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "journal/files.h"
#include "journal/key_file.h"
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
  SegmentCheck(const Segment& segment, Chain chain, Verification& result, std::function<void(RecordId)> on_record)
      : segment_(segment), chain_(chain), result_(result), on_record_(std::move(on_record)) {}

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
    auto tail = segment_.tail();
    if (tail) chain_.next_cell = tail->next_cell;
    chain_.is_known = true;
    return chain_;
  }

 private:
  void note(RecordId record, const std::string& what) {
    result_.findings.push_back({segment_.header().number, record, what});
  }

  void check(Segment::StoredRecord& record) {
    ++result_.records;
    if (record.id < chain_.next_cell) note(record.id, "its number is out of order");
    chain_.next_cell = record.id + 1;
    if (next_link(chain_.link, record.commitment) != record.link) note(record.id, "it does not continue the chain");
    chain_.link = record.link;
    if (!record.damage.empty()) return note(record.id, record.damage);
    if (record.kind == RecordKind::message) return check_message(record);
    if (record.kind == RecordKind::outcome && !decode_outcome(record.encoded)) note(record.id, "the outcome cannot be decoded");
  }

  void check_message(const Segment::StoredRecord& record) {
    ++result_.entries;
    std::optional<MessageRecord> message = decode_message(record.encoded);
    if (!message) return note(record.id, "the message record cannot be decoded");
    Sha256 hash;
    std::uint64_t size = 0;
    Status read = segment_.content(*message, record.extents, [&](std::string_view piece) {
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
  Verification& result_;
  std::function<void(RecordId)> on_record_;
};

/// What the child tells the parent at its end, as one line of JSON.
nlohmann::json report(const Verification& result, const Chain& chain) {
  nlohmann::json findings = nlohmann::json::array();
  for (const Finding& finding : result.findings) findings.push_back({finding.segment, finding.record, finding.what});
  return {{"records", result.records}, {"entries", result.entries}, {"content_bytes", result.content_bytes},
          {"findings", findings},      {"link", to_hex(view(chain.link))}, {"next_cell", chain.next_cell},
          {"is_known", chain.is_known}};
}

[[noreturn]] void run_child(const std::string& journal, std::uint32_t number, const Key& master, Chain chain, int out) {
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
  auto segment = Segment::open(journal, number, master, Environment::Mode::read);
  if (!segment) {
    result.findings.push_back({number, 0, segment.error().message});
    chain.is_known = false;
    send(report(result, chain).dump() + "\n");
    ::_exit(0);
  }
  std::uint64_t counter = 0;
  chain = SegmentCheck(**segment, chain, result, [&](RecordId id) {
            if (counter++ % 64 == 0) send(fmt::format("at {} {}\n", id, result.content_bytes));
          }).run();
  send(report(result, chain).dump() + "\n");
  ::_exit(0);
}

}  // namespace

Result<Verification> verify(const std::string& journal, const std::string& key_path,
                            const std::function<void(const VerifyProgress&)>& on_progress) {
  Result<Key> master = read_key_file(key_path);
  if (!master) return master.error();
  auto numbers = list_segments(journal);
  if (!numbers) return numbers.error();
  Verification all;
  VerifyProgress progress{0, 0};
  std::vector<std::uint64_t> sizes;
  for (std::uint32_t number : *numbers) {
    std::error_code ignored;
    sizes.push_back(std::filesystem::file_size(segment_path(journal, number), ignored));
    progress.bytes_total += sizes.back();
  }
  Chain chain;
  std::uint32_t expected = numbers->empty() ? 0 : numbers->front();
  for (std::size_t i = 0; i < numbers->size(); ++i) {
    std::uint32_t number = (*numbers)[i];
    if (i == 0 && number != 1) chain.is_known = false;  // older segments have gone by retention
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
      run_child(journal, number, *master, chain, out.get());
    }
    out.reset();
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
    if (result.is_discarded()) {
      std::string how = WIFSIGNALED(status) ? fmt::format("signal {}", WTERMSIG(status)) : "an early end";
      all.findings.push_back({number, 0, fmt::format("{}: reading it failed with {} at or after record {}: its pages are damaged",
                                                     segment_path(journal, number), how, last_record)});
      chain.is_known = false;
      continue;
    }
    all.records += result["records"].get<std::uint64_t>();
    all.entries += result["entries"].get<std::uint64_t>();
    all.content_bytes += result["content_bytes"].get<std::uint64_t>();
    for (const auto& finding : result["findings"])
      all.findings.push_back({finding[0].get<std::uint32_t>(), finding[1].get<std::uint64_t>(), finding[2].get<std::string>()});
    std::string link = from_hex(result["link"].get<std::string>()).value_or(std::string(32, '\0'));
    std::memcpy(chain.link.data(), link.data(), chain.link.size());
    chain.next_cell = result["next_cell"].get<CellNumber>();
    chain.is_known = result["is_known"].get<bool>();
  }
  all.last_link = to_hex(view(chain.link));
  return all;
}

}  // namespace holdfast::journal
