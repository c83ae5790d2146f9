#include "journal/writer.h"

#include <fmt/format.h>
#include <pthread.h>

#include <algorithm>
#include <chrono>

#include "journal/sha256_lanes.h"

namespace holdfast::journal {
namespace {

/// An open group this large is committed though nobody waits: its pages are in memory until then.
constexpr std::size_t group_size = 1024 * 1024;
/// A group this large is not written twice to spare it a wait: under load that costs more than it spares.
constexpr std::size_t large_group = 32 * 1024;
/// Outcomes that could not be written are kept up to so many.
constexpr std::size_t most_unwritten = 100000;
/// Pages of the map that were looked at stay in our memory's account until we let them go: after so many bytes written.
constexpr std::size_t most_mapped = 16 * 1024 * 1024;
/// Map space beyond a segment's size: for the last group, and for large content that is brought home.
constexpr std::uint64_t map_slack = 1ULL << 30;

}  // namespace

/// The job and its companions, in their order: for (auto& part : PartsOf(job)).
template <typename Job>
class PartsOf {
 public:
  explicit PartsOf(Job& job) : job_(job) {}
  struct Iterator {
    Job& job;
    std::size_t index;
    Job& operator*() const { return index == 0 ? job : job.companions[index - 1]; }
    Iterator& operator++() { return ++index, *this; }
    bool operator!=(const Iterator& other) const { return index != other.index; }
  };
  Iterator begin() const { return {job_, 0}; }
  Iterator end() const { return {job_, job_.companions.size() + 1}; }

 private:
  Job& job_;
};

std::shared_ptr<const Writer::SegmentKey> Writer::key_of(const Segment& segment) {
  return std::make_shared<const SegmentKey>(SegmentKey{segment.header().number, segment.key()});
}

std::uint64_t Writer::map_size(std::uint64_t segment_size) {
  constexpr std::uint64_t page = 4096;
  return (segment_size + map_slack + page - 1) / page * page;
}

Writer::Writer(WriterOptions options, const KeyRing& keys, Segments& segments, std::shared_ptr<Segment> segment, Segment::Tail tail,
               OnCommitted on_committed, OnEvent on_event)
    : options_(std::move(options)),
      keys_(keys),
      segments_(segments),
      on_committed_(std::move(on_committed)),
      on_event_(std::move(on_event)),
      segment_(std::move(segment)),
      tail_(tail),
      key_(key_of(*segment_)) {
  state_.segment = segment_->header().number;
  state_.last_id = tail_.next_cell - 1;
  state_.is_segment_empty = tail_.next_cell == segment_->header().first_cell;
  room_.enter(segment_->path(), segment_->environment().used_bytes());
  thread_ = std::thread([this] { run(); });
}

Writer::~Writer() {
  finish();
  room_.leave(segment_->environment().used_bytes());
}

void Writer::finish() {
  {
    std::lock_guard lock(mutex_);
    is_stopping_ = true;
  }
  wake_.notify_one();
  if (thread_.joinable()) thread_.join();
}

void Writer::submit(Job job) {
  bool must_wake;
  {
    std::lock_guard lock(mutex_);
    // Outcomes wait for company: only they do not wake a thread that will wake by itself.
    bool is_pressing = job.is_urgent || !job.frame.empty();
    must_wake = rest_ == Rest::until_work || (rest_ == Rest::until_pressed && is_pressing);
    queue_is_pressing_ |= is_pressing;
    if (!job.ticket) options_.notepad->add(job.key->segment, tail_, job.record);
    queue_.push_back(std::move(job));
    if (must_wake) rest_ = Rest::none;
  }
  if (must_wake) wake_.notify_one();
}

Writer::Job Writer::record_job(RecordKind kind, std::string encoded) const {
  Job job;
  job.key = current_key();
  job.record = seal_record(job.key->key, kind, encoded);
  job.encoded = std::move(encoded);
  return job;
}

void Writer::submit_record(RecordKind kind, std::string encoded) { submit(record_job(kind, std::move(encoded))); }

void Writer::submit_urgent(RecordKind kind, std::string encoded, std::shared_ptr<Ticket> ticket) {
  Job job = record_job(kind, std::move(encoded));
  job.ticket = std::move(ticket);
  job.is_urgent = true;
  submit(std::move(job));
}

void Writer::refuse_messages(std::string reason) {
  std::lock_guard lock(mutex_);
  is_refusing_ = !reason.empty();
  state_.refuses_why = std::move(reason);
}

bool Writer::commit_now(std::chrono::milliseconds patience) {
  std::unique_lock lock(mutex_);
  std::uint64_t mine = ++commits_asked_for_;
  queue_is_pressing_ = true;
  wake_.notify_one();
  return committed_.wait_for(lock, patience, [&] { return commits_answered_ >= mine; });
}

void Writer::roll_soon() {
  {
    std::lock_guard lock(mutex_);
    must_roll_ = true;
    state_.roll_problem.clear();
    queue_is_pressing_ = true;
  }
  wake_.notify_one();
}

std::shared_ptr<const Writer::SegmentKey> Writer::current_key() const {
  std::lock_guard lock(mutex_);
  return key_;
}

WriterState Writer::state() const {
  std::lock_guard lock(mutex_);
  WriterState state = state_;
  if (commit_began_) state.commit_under_way = std::chrono::steady_clock::now() - *commit_began_;
  return state;
}

void Writer::run() {
  pthread_setname_np(pthread_self(), "journal writer");
  for (;;) {
    auto [jobs, has_waited, answers, is_last] = gather();
    complete_messages(jobs);
    store_all(jobs);
    bool is_asked = answers > commits_answered_;
    if (group_is_urgent_ || group_bytes_ >= group_size || has_waited || is_asked || must_roll_) commit();
    bool is_all_written = group_.empty() && unwritten_.empty() && !leaves_some_;
    if (is_all_written) options_.notepad->wipe();
    roll_if_due();
    std::lock_guard lock(mutex_);
    commits_answered_ = answers;
    if (is_asked) committed_.notify_all();
    if (!is_last) continue;
    if (is_all_written && queue_.empty()) options_.notepad->wipe_all();
    return;
  }
}

/// Waits for work, and then for more that goes with it, unless somebody waits for it.
Writer::Work Writer::gather() {
  std::unique_lock lock(mutex_);
  auto is_pressed = [this] { return queue_is_pressing_ || is_stopping_; };
  auto has_work = [&] { return is_pressed() || !queue_.empty(); };
  if (!has_work()) rest_ = Rest::until_work;
  if (group_.empty() && unwritten_.empty()) wake_.wait(lock, has_work);
  if (group_.empty() && !unwritten_.empty()) wake_.wait_for(lock, retry_delay, has_work);
  rest_ = is_pressed() ? Rest::none : Rest::until_pressed;
  bool has_waited = !wake_.wait_for(lock, options_.lazy_delay, is_pressed);
  rest_ = Rest::none;
  queue_is_pressing_ = false;
  std::vector<Job> jobs = std::exchange(unwritten_, {});
  jobs.insert(jobs.end(), std::make_move_iterator(queue_.begin()), std::make_move_iterator(queue_.end()));
  queue_.clear();
  bool is_last = jobs.empty() && is_stopping_;
  options_.notepad->turn();
  return {std::move(jobs), has_waited || is_last, commits_asked_for_, is_last};
}

/// Hashes the contents of all small messages, side by side, and makes the records that have waited for that.
void Writer::complete_messages(std::vector<Job>& jobs) {
  std::vector<Job*> messages;
  for (Job& job : jobs)
    for (Job& part : PartsOf(job))
      if (part.message) messages.push_back(&part);
  std::vector<Sha256Stream> streams(messages.size());
  std::vector<Sha256Piece> pieces;
  for (std::size_t i = 0; i < messages.size(); ++i)
    if (messages[i]->unhashed) pieces.push_back({&streams[i], *messages[i]->unhashed, &messages[i]->message->content_hash});
  feed(pieces);
  for (Job* job : messages) {
    job->encoded = encode(*job->message);
    job->record = seal_record(job->key->key, RecordKind::message, job->encoded);
    job->message.reset();
    job->unhashed.reset();
  }
}

/// Why it is not to be written: messages are refused now, or a part of what goes together has failed before.
std::optional<Error> Writer::refusal_of(const Job& job) {
  for (const Job& part : PartsOf(job)) {
    if (!part.ticket) continue;
    if (part.ticket->has_failed()) return part.ticket->error_;
    bool is_mail = !part.frame.empty() || part.record.kind == RecordKind::message;
    if (is_mail && is_refusing_) return Error{ErrorCode::no_space, state().refuses_why};
  }
  return std::nullopt;
}

/// What is refused fails in all its parts.
void Writer::turn_away(const Job& job, std::vector<std::shared_ptr<Ticket>>& to_be_told) {
  std::optional<Error> refusal = refusal_of(job);
  if (!refusal) return;
  for (const Job& part : PartsOf(job)) {
    if (!part.ticket || part.ticket->has_failed()) continue;
    std::erase_if(touched_, [&](const Touched& touched) { return touched.ticket == part.ticket; });
    part.ticket->home_.reset();
    part.ticket->error_ = *refusal;
    part.ticket->failed_.store(true, std::memory_order_release);
    to_be_told.push_back(part.ticket);
  }
}

void Writer::store_all(std::vector<Job>& jobs) {
  std::vector<std::shared_ptr<Ticket>> to_be_told;
  for (Job& job : jobs) {
    turn_away(job, to_be_told);
    std::vector<std::pair<std::shared_ptr<Ticket>, std::size_t>> frames;
    for (const Job& part : PartsOf(job))
      if (part.ticket && !part.frame.empty()) frames.emplace_back(part.ticket, part.frame.size());
    Status stored = store(job);
    if (!stored) {
      group_.push_back(std::move(job));
      if (needs_new_segment(stored.error()))
        retry_in_new_segment(stored.error());
      else
        fail_group(stored.error());
    }
    for (auto& [ticket, size] : frames)
      if (ticket->unstored_.fetch_sub(size, std::memory_order_acq_rel) > Ticket::flood_mark) to_be_told.push_back(std::move(ticket));
    if (group_bytes_ >= group_size) commit();
  }
  tell(to_be_told);
}

Status Writer::begin() {
  if (transaction_) return {};
  Result<Transaction> begun = Transaction::begin(segment_->environment(), Environment::Mode::write);
  if (!begun) return begun.error();
  transaction_.emplace(std::move(*begun));
  group_tail_ = tail_;
  return {};
}

Status Writer::store(Job& job) {
  if (job.ticket && job.ticket->has_failed()) return {};
  remember(job);
  if (Status begun = begin(); !begun) return begun;
  for (Job& part : PartsOf(job)) {
    if (Status stored = store_alone(part); !stored) return stored;
    group_bytes_ += part.frame.size() + part.record.sealed.size();
  }
  group_is_urgent_ |= job.is_urgent;
  group_.push_back(std::move(job));
  return {};
}

Status Writer::store_alone(Job& job) {
  if (Status moved = bring_home(job); !moved) return moved;
  if (!job.frame.empty())
    if (Status stored = store_frame(*job.ticket, job.frame); !stored) return stored;
  return job.encoded.empty() ? Status() : store_record(job);
}

/// Where its drafts stood before the group.
void Writer::remember(const Job& job) {
  for (const Job& part : PartsOf(job)) {
    auto is_known = [&](const Touched& touched) { return touched.ticket == part.ticket; };
    if (!part.ticket || std::any_of(touched_.begin(), touched_.end(), is_known)) continue;
    touched_.push_back({part.ticket, part.ticket->extents_, part.ticket->home_});
  }
}

Status Writer::store_frame(Ticket& ticket, std::string_view frame) {
  for (; !frame.empty(); frame.remove_prefix(std::min(frame.size(), cell_size))) {
    CellNumber cell = group_tail_.next_cell;
    if (Status put = transaction_->put(cell_key(cell, false), frame.substr(0, cell_size), MDB_APPEND); !put) return put;
    extend(ticket.extents_, cell);
    ++group_tail_.next_cell;
  }
  return {};
}

Status Writer::store_record(Job& job) {
  ContentPlace content;
  if (job.ticket) content.extents = job.ticket->extents_;
  RecordId id = group_tail_.next_cell;
  if (Status appended = append_record(*transaction_, group_tail_, job.record, std::move(content)); !appended) return appended;
  group_ids_.push_back(id);
  return {};
}

void Writer::commit() {
  if (!transaction_) return;
  Transaction transaction = std::move(*transaction_);
  transaction_.reset();
  Status committed = sync(transaction);
  if (committed) return finish_group();
  if (!needs_new_segment(committed.error())) return fail_group(committed.error());
  retry_in_new_segment(committed.error());
  commit();  // the new one is empty: this comes back here no more
}

/// Beside a clock: whoever asks learns how slow the disk is.
Status Writer::sync(Transaction& transaction) {
  auto began = std::chrono::steady_clock::now();
  {
    std::lock_guard lock(mutex_);
    commit_began_ = began;
  }
  Status committed = transaction.commit();
  std::lock_guard lock(mutex_);
  commit_began_.reset();
  ++state_.commits;
  state_.commit_time += std::chrono::steady_clock::now() - began;
  return committed;
}

void Writer::finish_group() {
  if (group_bytes_ < large_group) room_.used(segment_->environment().used_bytes());
  unmapped_bytes_ += group_bytes_;
  if (unmapped_bytes_ > most_mapped) {
    segment_->environment().forget_pages();
    unmapped_bytes_ = 0;
  }
  std::vector<std::shared_ptr<Ticket>> settled;
  std::vector<RecordId> settled_as;
  std::vector<Committed> committed;
  std::size_t next_id = 0;
  std::uint64_t messages = 0;
  RecordId last_mail = 0;
  auto take_record = [&](Job& job) {
    RecordId id = group_ids_[next_id++];
    messages += job.record.kind == RecordKind::message;
    if (job.record.kind == RecordKind::message || job.record.kind == RecordKind::outcome) last_mail = id;
    committed.push_back({id, segment_->header().number, job.record.kind, std::move(job.encoded)});
    return id;
  };
  for (Job& job : group_) {
    if (job.encoded.empty()) continue;
    for (Job& part : PartsOf(job)) {
      RecordId id = take_record(part);
      if (!part.ticket) continue;
      part.ticket->home_.reset();
      settled.push_back(part.ticket);
      settled_as.push_back(id);
    }
  }
  group_.clear();
  group_ids_.clear();
  touched_.clear();
  group_bytes_ = 0;
  group_is_urgent_ = false;
  bool has_recovered;
  {
    std::lock_guard lock(mutex_);
    tail_ = group_tail_;
    has_recovered = !state_.is_working;
    state_.is_working = true;
    state_.entries += messages;
    state_.is_segment_empty &= committed.empty();
    state_.last_id = tail_.next_cell - 1;
    if (last_mail > 0) state_.last_mail = last_mail;
  }
  if (has_recovered) on_event_(false, "the journal can be written again");
  // Only now: whoever sees that his record is committed finds it in the state too.
  for (std::size_t i = 0; i < settled.size(); ++i) settled[i]->id_.store(settled_as[i], std::memory_order_release);
  tell(settled);
  if (!committed.empty()) on_committed_(committed);
}

/// Undoes the open group and tells all who wait for it. Records for which nobody waits are kept for the next group: an outcome that
/// was lost would have a message delivered twice after a restart.
void Writer::fail_group(const Error& error) {
  transaction_.reset();
  std::vector<std::shared_ptr<Ticket>> settled;
  for (Touched& touched : touched_) {
    touched.ticket->home_.reset();
    touched.ticket->error_ = error;
    touched.ticket->failed_.store(true, std::memory_order_release);
    settled.push_back(std::move(touched.ticket));
  }
  std::vector<Job> group = std::exchange(group_, {});
  group_ids_.clear();
  touched_.clear();
  group_bytes_ = 0;
  group_is_urgent_ = false;
  bool is_news;
  std::size_t lost_outcomes = 0;
  {
    std::lock_guard lock(mutex_);
    for (Job& job : group) {
      if (job.ticket) continue;
      bool is_kept = !is_stopping_ && unwritten_.size() < most_unwritten;
      if (is_kept)
        unwritten_.push_back(std::move(job));
      else
        ++lost_outcomes;
    }
    leaves_some_ |= is_stopping_ && lost_outcomes > 0;
    is_news = state_.is_working || state_.last_error != error.message;
    state_.is_working = false;
    state_.last_error = error.message;
  }
  if (is_news) on_event_(true, fmt::format("the journal cannot be written: {}", error.message));
  if (lost_outcomes > 0)
    on_event_(true, fmt::format(
                        "{} outcomes could not be recorded{}", lost_outcomes,
                        leaves_some_ && options_.notepad->outlives_process() ? "; the next start tries again, unless the machine is rebooted" : ""));
  tell(settled);
}

void Writer::tell(std::vector<std::shared_ptr<Ticket>>& tickets) {
  while (!tickets.empty()) {
    CompletionQueue& queue = tickets.front()->queue_;
    auto theirs = std::stable_partition(tickets.begin(), tickets.end(), [&](const auto& ticket) { return &ticket->queue_ != &queue; });
    std::vector<std::shared_ptr<Ticket>> batch(std::make_move_iterator(theirs), std::make_move_iterator(tickets.end()));
    tickets.erase(theirs, tickets.end());
    queue.complete(batch);
  }
}

}  // namespace holdfast::journal
