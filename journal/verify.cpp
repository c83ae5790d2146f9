#include "journal/verify.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <map>
#include <set>

#include "journal/catalog.h"
#include "journal/head_check.h"
#include "journal/idle_work.h"
#include "journal/manifest.h"
#include "journal/segment.h"

namespace holdfast::journal {
namespace {

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
    all.findings.push_back(
        {0, 0, fmt::format("the catalog has {} entries where the segments have {}; run: holdfast journal rebuild", catalog.entries, entries)});
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

bool has_gone(const std::string& journal, std::uint32_t number) {
  std::error_code ignored;
  return !std::filesystem::exists(segment_path(journal, number), ignored);
}

/// The check of the whole log, which may grow, be rewritten and lose its beginning meanwhile.
class LogCheck {
 public:
  LogCheck(const std::string& journal, const VerifyOptions& options, const std::optional<KeyRing>& keys,
           const std::function<void(const VerifyProgress&)>& on_progress)
      : journal_(journal), options_(options), keys_(keys), on_progress_(on_progress), heads_(journal, options.signer, all_) {}

  Result<Verification> run() {
    // First: what it knows by now is in segments that are listed after it.
    if (keys_) catalog_ = look_at_catalog(journal_, *keys_);
    auto numbers = list_segments(journal_);
    if (!numbers) return numbers.error();
    heads_.check_lines(numbers->empty() ? 0 : numbers->back());
    if (Status read = heads_.check_published(options_.heads_path); !read) return read.error();
    std::size_t skipped = segments_before(journal_, *numbers, options_.since_us);
    has_begin_ = skipped == 0;
    bool has_all = has_begin_ && !numbers->empty() && numbers->front() == 1;
    add(numbers->begin() + static_cast<std::ptrdiff_t>(skipped), numbers->end());
    // The record that explains what is gone is written before it goes: in a segment that is there by now.
    do {
      for (; next_ < numbers_.size(); ++next_)
        if (Status checked = check(numbers_[next_]); !checked) return checked.error();
    } while (is_anything_unexplained() && finds_more());
    for (const auto& [segment, records] : unexplained_)
      for (RecordId record : records) all_.findings.push_back({segment, record, "it was erased, but there is no erasure record of it"});
    if (is_begin_unexplained())
      all_.findings.push_back({first() - 1, 0, "the segment and all before it are missing, and there is no record that they were pruned"});
    all_.last_link = to_hex(view(chain_.link));
    if (keys_ && has_all && gone_ == 0 && all_.findings.empty()) check_catalog(catalog_, indexed_entries_, all_);
    return std::move(all_);
  }

 private:
  using Numbers = std::vector<std::uint32_t>;

  void add(Numbers::const_iterator begin, Numbers::const_iterator end) {
    numbers_.insert(numbers_.end(), begin, end);
    for (; begin != end; ++begin) {
      std::error_code ignored;
      sizes_.push_back(std::filesystem::file_size(segment_path(journal_, *begin), ignored));
      progress_.bytes_total += sizes_.back();
    }
  }

  /// Segments that were begun since the last look.
  bool finds_more() {
    auto numbers = list_segments(journal_);
    if (!numbers || numbers_.empty()) return false;
    auto more = std::upper_bound(numbers->begin(), numbers->end(), numbers_.back());
    add(more, numbers->end());
    return next_ < numbers_.size();
  }

  Status check(std::uint32_t number) {
    if (next_ == 0) chain_.is_known = number == 1;  // older segments have gone by retention, or are left out
    for (std::uint32_t expected = next_ == 0 ? number : numbers_[next_ - 1] + 1; expected < number; ++expected) {
      all_.findings.push_back({expected, 0, "the segment is missing"});
      chain_.is_known = false;
    }
    std::uint64_t size = sizes_[next_];
    auto tell = [&](std::uint64_t bytes) {
      if (on_progress_) on_progress_({progress_.bytes_done + std::min(bytes, size), progress_.bytes_total});
    };
    auto report = check_segment(journal_, number, keys_, chain_, catalog_.position, tell, [&] { check_bytes(number); });
    if (!report) return report.error();
    ++all_.segments;
    progress_.bytes_done += size;
    tell(0);
    if (is_pruned()) {  // since the segments were listed: whether that is on record, says the end
      gone_ = next_ + 1;
      std::erase_if(all_.findings, [&](const Finding& finding) { return finding.segment == number; });
      chain_.is_known = false;
      return {};
    }
    chain_ = report->chain;
    take_in(number, *report);
    return {};
  }

  /// The stored bytes, against what was signed.
  void check_bytes(std::uint32_t number) {
    if (!heads_.has(number)) return;
    IdleWork idle;
    auto step = [&](std::uint64_t) { idle.step(); };
    std::vector<std::string> problems = check_manifest(journal_, number, heads_.signer(), step);
    // The segment may be rewritten at this moment: a second look tells.
    if (!problems.empty()) problems = check_manifest(journal_, number, heads_.signer(), step);
    for (const std::string& problem : problems) all_.findings.push_back({number, 0, problem});
  }

  /// Retention takes the oldest first: this one has gone, and all before it.
  bool is_pruned() const {
    auto end = numbers_.begin() + static_cast<std::ptrdiff_t>(next_) + 1;
    return std::all_of(numbers_.begin(), end, [this](std::uint32_t one) { return has_gone(journal_, one); });
  }

  void take_in(std::uint32_t number, const SegmentReport& report) {
    all_.records += report.records;
    all_.entries += report.entries;
    all_.content_bytes += report.content_bytes;
    all_.erased += report.erased.size();
    indexed_entries_ += report.indexed_entries;
    all_.findings.insert(all_.findings.end(), report.findings.begin(), report.findings.end());
    if (report.chain.is_known) heads_.check_segment(number, report.records, to_hex(view(report.root)), to_hex(view(report.chain.link)));
    if (!keys_) return;
    // An erasure record comes after what it erases: it is there whatever was pruned.
    unexplained_[number] = report.erased;
    announced_.insert(report.announced.begin(), report.announced.end());
    for (std::uint32_t emptied : report.emptied) unexplained_.erase(emptied);
    pruned_.insert(report.pruned.begin(), report.pruned.end());
  }

  /// The first segment that is there, as far as it is known; 0 when none is.
  std::uint32_t first() const { return gone_ < numbers_.size() ? numbers_[gone_] : 0; }
  /// The record of the last segment that was taken away stands in one that is still there.
  bool is_begin_unexplained() const { return keys_ && has_begin_ && first() > 1 && pruned_.count(first() - 1) == 0; }
  /// To be asked when all that is known is taken in.
  bool is_anything_unexplained() {
    for (auto& [segment, records] : unexplained_) std::erase_if(records, [&](RecordId record) { return announced_.contains(record); });
    std::erase_if(unexplained_, [](const auto& one) { return one.second.empty(); });
    return !unexplained_.empty() || is_begin_unexplained() || first() == 0;
  }

  const std::string& journal_;
  const VerifyOptions& options_;
  const std::optional<KeyRing>& keys_;
  const std::function<void(const VerifyProgress&)>& on_progress_;
  Verification all_;
  HeadCheck heads_;
  CatalogState catalog_;
  Numbers numbers_;  ///< the segments to check, in the order of the log
  std::vector<std::uint64_t> sizes_;
  VerifyProgress progress_{0, 0};
  std::size_t next_ = 0;    ///< of numbers_: which to check next
  std::size_t gone_ = 0;    ///< of numbers_: so many have gone by retention since they were listed
  bool has_begin_ = false;  ///< nothing is left out
  Chain chain_;
  std::uint64_t indexed_entries_ = 0;
  std::map<std::uint32_t, std::vector<RecordId>> unexplained_;  ///< by segment: records that are erased, so far by nothing
  std::set<RecordId> announced_;
  std::set<std::uint32_t> pruned_;
};

}  // namespace

Result<Verification> verify(const std::string& journal, const VerifyOptions& options, const std::function<void(const VerifyProgress&)>& on_progress) {
  std::optional<KeyRing> keys;
  if (options.key) {
    auto ring = KeyRing::open(journal, *options.key);
    if (!ring) return ring.error();
    keys = *ring;
  }
  return LogCheck(journal, options, keys, on_progress).run();
}

}  // namespace holdfast::journal
