// The writer: the one thread that appends to the journal, in groups, one synced commit a group.
//
// Jobs that wait for their commit (messages) are committed as soon as the thread is free, together with all that has come
// by then. Jobs for which nobody waits (outcomes, the frames of large content) ride along, or are committed shortly after; the
// records among them are on the notepad until then.
//
// When a commit fails, everything in the group that somebody waits for fails with its error, the log's tail is as before, and
// the next group tries anew, with the outcomes of the failed one: so service resumes by itself when a full disk has space again.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

#include "journal/notepad.h"
#include "journal/room.h"
#include "journal/segment.h"
#include "journal/segments.h"
#include "journal/ticket.h"

namespace holdfast::journal {

struct WriterOptions {
  std::string journal;                       ///< the journal's folder
  std::uint64_t segment_size = 0;            ///< bytes after which a new segment is begun
  std::int64_t segment_age_us = 0;           ///< microseconds after which a segment with records is followed by a new one; 0: never
  std::chrono::milliseconds lazy_delay{10};  ///< how long a job for which nobody waits may stay uncommitted
  Notepad* notepad = nullptr;  ///< never null: where records for which nobody waits are noted until they are committed; outlives the writer
  std::function<void()> on_rolled = [] {};  ///< a new segment has begun; called on the writer's thread
};

/// A record that has been committed, for those who index it. encoded is as record.h encodes.
struct Committed {
  RecordId id;
  std::uint32_t segment;
  RecordKind kind;
  std::string encoded;
};

struct WriterState {
  bool is_working = true;     ///< the last commit succeeded
  std::string last_error;     ///< of the last failed commit
  std::string refuses_why;    ///< messages, as refuse_messages() says
  std::uint64_t entries = 0;  ///< messages committed since the start
  RecordId last_id = 0;
  RecordId last_mail = 0;  ///< the last message or outcome since the start
  std::uint32_t segment = 0;
  bool is_segment_empty = true;                  ///< the newest one has no records
  std::string roll_problem;                      ///< why a new one could not be begun, when that was tried last
  std::uint64_t commits = 0;                     ///< to the disk, since the start, those that failed too
  std::chrono::nanoseconds commit_time{0};       ///< what they took together
  std::chrono::nanoseconds commit_under_way{0};  ///< for how long one has been; 0: none is
};

class Writer {
 public:
  struct SegmentKey {
    std::uint32_t segment;
    Key key;
  };
  /// A piece of work: at most one frame of content, then at most one record; and others, each with a record, that are committed together with
  /// it or not at all.
  struct Job {
    std::shared_ptr<Ticket> ticket;         ///< may be null when nobody waits
    std::shared_ptr<const SegmentKey> key;  ///< what frame and record are sealed with
    ContentId content_id{};
    std::uint32_t frame_index = 0;
    bool frame_is_last = false;
    std::string frame;                     ///< empty: none
    std::optional<MessageRecord> message;  ///< the writer makes record and encoded of it
    std::optional<std::string> unhashed;   ///< the content, whose hash the message lacks
    SealedRecord record;
    std::string encoded;          ///< of the record; empty: no record
    std::vector<Job> companions;  ///< have none of their own
    bool is_urgent = false;
  };

  using OnCommitted = std::function<void(std::vector<Committed>&)>;
  /// Log lines for the operator: is_error, then the sentence. Called on the writer's thread.
  using OnEvent = std::function<void(bool is_error, const std::string&)>;

  /// segment is the newest, opened for writing; on_committed is called on the writer's thread once a group.
  Writer(WriterOptions options, const KeyRing& keys, Segments& segments, std::shared_ptr<Segment> segment, Segment::Tail tail,
         OnCommitted on_committed, OnEvent on_event);
  /// Like finish().
  ~Writer();

  /// Commits all that was submitted, tells who waits for it, and ends the thread. What is submitted later stays undone. Not thread-safe.
  void finish();

  /// Hands over a job. Thread-safe, does not wait.
  void submit(Job job);
  /// A job that is this record and no more.
  Job record_job(RecordKind kind, std::string encoded) const;
  /// Submits a record for which nobody waits.
  void submit_record(RecordKind kind, std::string encoded);
  /// Submits a record that is to be committed at once; the ticket, when there is one, tells when.
  void submit_urgent(RecordKind kind, std::string encoded, std::shared_ptr<Ticket> ticket);

  /// Commits all that was submitted before, also what waits for company, and waits for that, but no longer than patience. Returns whether
  /// it is done. Thread-safe; blocks.
  bool commit_now(std::chrono::milliseconds patience);

  /// Refuses messages for this reason, as when the disk is full, until it is called with "". What is recorded of those that are there goes on.
  /// Thread-safe, does not wait.
  void refuse_messages(std::string reason);

  /// Begins a new segment as soon as the open group is committed, unless the newest is empty. Thread-safe, does not wait.
  void roll_soon();

  /// The key to seal with now. Thread-safe.
  std::shared_ptr<const SegmentKey> current_key() const;
  /// Thread-safe.
  WriterState state() const;

  static std::uint64_t map_size(std::uint64_t segment_size);

 private:
  /// Outcomes that could not be written are tried again so often, and so is a segment that could not be begun.
  static constexpr std::chrono::seconds retry_delay{1};
  static std::shared_ptr<const SegmentKey> key_of(const Segment& segment);

  struct Touched {
    std::shared_ptr<Ticket> ticket;
    std::vector<Extent> extents;
    std::shared_ptr<Segment> home;
  };

  struct Work {
    std::vector<Job> jobs;
    bool has_waited;        ///< for company, and long enough
    std::uint64_t answers;  ///< calls of commit_now() up to this one
    bool is_last;           ///< nothing is left, and nothing comes any more
  };

  void run();
  Work gather();
  static void complete_messages(std::vector<Job>& jobs);
  void store_all(std::vector<Job>& jobs);
  std::optional<Error> refusal_of(const Job& job);
  void turn_away(const Job& job, std::vector<std::shared_ptr<Ticket>>& to_be_told);
  Status store(Job& job);
  Status store_alone(Job& job);
  Status store_frame(Ticket& ticket, std::string_view frame);
  Status store_record(Job& job);
  Status bring_home(Job& job);
  void remember(const Job& job);
  Status begin();
  void commit();
  Status sync(Transaction& transaction);
  bool needs_new_segment(const Error& error) const;
  void retry_in_new_segment(const Error& error);
  void fail_group(const Error& error);
  void finish_group();
  void tell(std::vector<std::shared_ptr<Ticket>>& tickets);
  void roll_if_due();
  Status roll();

  const WriterOptions options_;
  const KeyRing keys_;
  Segments& segments_;
  OnCommitted on_committed_;
  OnEvent on_event_;

  // The log's end as committed.
  std::shared_ptr<Segment> segment_;
  Segment::Tail tail_;  ///< changed under the mutex, so that others may look at it
  Room room_;

  // The open group.
  std::optional<Transaction> transaction_;
  Segment::Tail group_tail_{};
  std::vector<Job> group_;           ///< stored in the open transaction; kept until it is committed
  std::vector<Touched> touched_;     ///< drafts as they were before the group
  std::vector<RecordId> group_ids_;  ///< of the records in the group, in the order of group_
  std::size_t unmapped_bytes_ = 0;   ///< written since pages were last let go
  std::size_t group_bytes_ = 0;
  bool group_is_urgent_ = false;

  mutable std::mutex mutex_;
  std::condition_variable wake_, committed_;
  std::vector<Job> queue_;
  std::vector<Job> unwritten_;  ///< records of failed groups for which nobody waits; the writer's own
  bool leaves_some_ = false;    ///< the end came before they could be written; the writer's own
  bool queue_is_pressing_ = false;
  std::uint64_t commits_asked_for_ = 0, commits_answered_ = 0;
  bool is_stopping_ = false;
  enum class Rest { none, until_work, until_pressed } rest_ = Rest::none;  ///< what the thread is to be woken for
  std::atomic<bool> must_roll_{false}, is_refusing_{false};
  std::chrono::steady_clock::time_point next_roll_{};  ///< after one that failed; the writer's own, as is why it failed
  std::shared_ptr<const SegmentKey> key_;
  WriterState state_;
  std::optional<std::chrono::steady_clock::time_point> commit_began_;  ///< of one that is under way
  std::thread thread_;
};

}  // namespace holdfast::journal
