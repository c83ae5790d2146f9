#include "journal/sealer.h"

#include <fmt/format.h>
#include <pthread.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <filesystem>

#include "journal/files.h"
#include "journal/manifest.h"
#include "journal/merkle.h"

namespace holdfast::journal {
namespace {

/// What could not be sealed or published is tried again so often.
constexpr auto retry_interval = std::chrono::minutes(1);

}  // namespace

Result<std::string> make_head(const std::string& journal, const Segment& segment, const SigningKey& key, Pace& pace) {
  Head head;
  head.segment = segment.header().number;
  head.first = segment.header().first_cell;
  head.previous = head.last = segment.header().previous_link;
  head.time_us = now_us();
  std::vector<Hash> leaves;
  std::string damage;
  Status walked = segment.each_record(0, [&](Segment::StoredRecord& record) {
    bool is_next = record.damage.empty() && next_link(head.last, record.commitment) == record.link;
    if (!is_next)
      damage = fmt::format("{}: record {} is damaged, so the segment is not signed; run: holdfast journal verify", segment.path(), record.id);
    head.last = record.link;
    leaves.push_back(leaf_hash(view(record.commitment)));
    pace.step();
    return damage.empty();
  });
  if (!walked) return walked.error();
  if (!damage.empty()) return Error{ErrorCode::corrupt, damage};
  head.records = leaves.size();
  head.root = MerkleTree(std::move(leaves)).root();
  std::vector<std::uint32_t> heads = list_heads(journal);
  auto after = std::lower_bound(heads.begin(), heads.end(), head.segment);
  if (after != heads.begin()) {
    auto line = read_head(journal, *std::prev(after));
    if (!line) return line.error();
    head.before = sha256(*line);
  }
  return sign_head(head, key);
}

Sealer::Sealer(SealerOptions options, Segments& segments, SigningKey key, std::uint32_t newest)
    : options_(std::move(options)), segments_(segments), key_(std::move(key)), newest_(newest), thread_([this] { run(); }) {}

Sealer::~Sealer() {
  {
    std::lock_guard lock(mutex_);
    is_stopping_ = true;
  }
  wake_.notify_one();
  thread_.join();
}

void Sealer::newest_is(std::uint32_t number) {
  {
    std::lock_guard lock(mutex_);
    newest_ = number;
    has_work_ = true;
  }
  wake_.notify_one();
}

void Sealer::run() {
  pthread_setname_np(pthread_self(), "sealer");
  // Mail goes first.
  ::setpriority(PRIO_PROCESS, static_cast<id_t>(::gettid()), 19);
  std::unique_lock lock(mutex_);
  bool has_failed = false;
  while (!is_stopping_) {
    std::uint32_t newest = newest_;
    has_work_ = false;
    lock.unlock();
    Status done = seal_all(newest);
    Status shown = show_heads(options_.journal, options_.witnesses, [this] { return !is_stopping(); });
    if (done) done = shown;
    Status compacted = compact_all(newest);
    if (done) done = compacted;
    std::string problem = done ? "" : done.error().message;
    if (!problem.empty() && problem != last_problem_) options_.on_event(true, problem);
    last_problem_ = problem;
    has_failed = !done;
    lock.lock();
    auto is_due = [this] { return has_work_ || is_stopping_; };
    if (has_failed)
      wake_.wait_for(lock, retry_interval, is_due);
    else
      wake_.wait(lock, is_due);
  }
}

bool Sealer::is_stopping() {
  std::lock_guard lock(mutex_);
  return is_stopping_;
}

/// A head must not wait until all that is old is compacted.
bool Sealer::is_wanted() {
  std::lock_guard lock(mutex_);
  return has_work_ || is_stopping_;
}

Status Sealer::seal_all(std::uint32_t newest) {
  auto numbers = list_segments(options_.journal);
  if (!numbers) return numbers.error();
  Status first_problem;
  for (std::uint32_t number : *numbers) {
    if (number >= newest || is_stopping()) break;
    std::lock_guard lock(options_.one_at_a_time);
    if (Status goes_on = seal_next(number, Pace([this] { return is_stopping(); }), first_problem); !goes_on) return goes_on;
  }
  return first_problem;
}

Status Sealer::seal_below(std::uint32_t newest) {
  auto numbers = list_segments(options_.journal);
  if (!numbers) return numbers.error();
  Status first_problem;
  for (std::uint32_t number : *numbers) {
    if (number >= newest) break;
    if (Status goes_on = seal_next(number, Pace(), first_problem); !goes_on) return goes_on;
  }
  return first_problem;
}

/// A damaged segment is passed over, and gets no head any more once a later one has: each head continues the one before. Error: this one
/// can be sealed later only, and those after it too.
Status Sealer::seal_next(std::uint32_t number, Pace pace, Status& first_problem) {
  Status sealed = seal(number, pace);
  if (!sealed && sealed.error().code == ErrorCode::not_found) return {};  // pruned since the segments were listed
  if (!sealed && first_problem) first_problem = sealed;
  bool is_passed_over = sealed || is_damage(sealed.error());
  return is_passed_over ? Status() : sealed;
}

Status Sealer::compact_all(std::uint32_t newest) {
  if (!options_.compact) return {};
  auto numbers = list_segments(options_.journal);
  if (!numbers) return numbers.error();
  Status first_problem;
  for (std::uint32_t number : *numbers) {
    if (number >= newest || is_wanted()) break;
    std::error_code ignored;
    if (compacted_.count(number) > 0 || !std::filesystem::exists(head_path(options_.journal, number), ignored)) continue;
    auto segment = Segment::open_without_key(options_.journal, number);
    if (!segment) continue;  // damaged, or pruned at this moment
    bool is_done = (*segment)->header().is_compacted;
    segment = Error{ErrorCode::not_found, ""};  // closed before it is replaced
    if (!is_done) {
      Status compacted = options_.compact(number, [this] { return !is_stopping(); });
      if (!compacted && first_problem && compacted.error().code != ErrorCode::busy) first_problem = compacted;
      if (!compacted) continue;
      options_.on_event(false, fmt::format("compacted journal segment {}", number));
    }
    compacted_.insert(number);
  }
  return first_problem;
}

Status Sealer::seal(std::uint32_t number, Pace& pace) {
  std::error_code ignored;
  bool has_head = std::filesystem::exists(head_path(options_.journal, number), ignored);
  bool has_manifest = std::filesystem::exists(manifest_path(options_.journal, number), ignored);
  if (!has_manifest)
    if (Status written = write_manifest(options_.journal, number, key_, pace); !written) return written;
  if (has_head) return {};
  std::vector<std::uint32_t> heads = list_heads(options_.journal);
  if (!heads.empty() && heads.back() > number) return {};
  auto segment = segments_.get(number);
  if (!segment) return segment.error();
  auto line = make_head(options_.journal, **segment, key_, pace);
  if (!line) return line.error();
  if (Status written = write_head(options_.journal, number, *line); !written) return written;
  options_.on_event(false, fmt::format("sealed journal segment {}", number));
  return {};
}

}  // namespace holdfast::journal
