#include "proxy/journal_watch.h"

#include <fmt/format.h>

#include <algorithm>
#include <system_error>
#include <thread>
#include <utility>

#include "proxy/log.h"

namespace holdfast::proxy {
namespace {

constexpr auto journal_look_interval = std::chrono::seconds(1);
/// What is wrong with it matters at the next start.
constexpr auto key_look_interval = std::chrono::seconds(10);
/// Whoever waits for a commit waits for so long: mail is taken, but slowly.
constexpr Duration very_slow{1000};
/// A disk that was slow is said to be so for a while: it often comes and goes.
constexpr auto slow_for = std::chrono::minutes(1);

}  // namespace

void JournalWatch::look(const JournalConfig& config) {
  if (Clock::now() < next_look_) return;
  next_look_ = Clock::now() + journal_look_interval;
  journal::WriterState writer = journal_.writer().state();
  watch_state(writer);
  watch_speed(writer);
  watch_room(config);
  watch_refusal(config);
  watch_key_ring();
  watch_key_file(config);
}

void JournalWatch::watch_state(const journal::WriterState& writer) {
  bool is_writable = writer.is_working && writer.refuses_why.empty();
  if (std::exchange(is_writable_, is_writable) == is_writable) return;
  alert_(is_writable ? "WRITABLE again" : "NOT WRITABLE: " + (writer.is_working ? writer.refuses_why : writer.last_error));
}

void JournalWatch::watch_speed(const journal::WriterState& writer) {
  std::uint64_t commits = writer.commits - std::exchange(seen_commits_, writer.commits);
  std::chrono::nanoseconds time = writer.commit_time - std::exchange(seen_commit_time_, writer.commit_time);
  if (commits > 0) time /= static_cast<std::int64_t>(commits);
  auto takes = std::chrono::duration_cast<Duration>(std::max(time, writer.commit_under_way));
  bool was_slow = slow_commit_ > Duration(0);
  if (takes >= very_slow) {
    slow_until_ = Clock::now() + slow_for;
    slow_commit_ = takes;
  } else if (Clock::now() >= slow_until_) {
    slow_commit_ = Duration(0);
  }
  bool is_slow = slow_commit_ > Duration(0);
  if (is_slow && !was_slow) {
    std::string problem = fmt::format("a commit takes {:.1f} s, and clients wait for it", static_cast<double>(takes.count()) / 1000);
    log(LogLevel::error, "journal",
        {{"problem", "the disk is slow: " + problem}, {"remedy", "see what else keeps its disk busy, and whether it is failing"}});
    alert_("SLOW DISK: " + problem);
  } else if (was_slow && !is_slow) {
    log(LogLevel::info, "journal", {{"note", "the disk is no longer slow"}});
  }
}

void JournalWatch::watch_room(const JournalConfig& config) {
  bool was_nearly_full = room_.is_nearly_full;
  room_ = room_for_journal(config, journal_.bytes(), was_nearly_full);
  if (!room_.is_nearly_full || was_nearly_full) return;
  std::string left = fmt::format("there is room for {:.1f} MiB more", static_cast<double>(room_.left) / (1 << 20));
  log(LogLevel::warning, "journal",
      {{"problem", "nearly full: " + left},
       {"remedy", "a larger disk, journal.max_size or journal.retention; holdfast journal stats tells how fast it grows"}});
  alert_("NEARLY FULL: " + left);
}

/// What is written into a file that nobody finds any more is not in the journal.
void JournalWatch::watch_refusal(const JournalConfig& config) {
  std::string reason, remedy;
  if (std::string path = journal_.displaced(); !path.empty()) {
    reason = path + " was removed or replaced while Holdfast writes to it";
    remedy =
        "put it back, or restart Holdfast, which begins a new journal or goes on with the one that is there; until then held mail can still be "
        "delivered";
  } else if (config.max_size > 0 && journal_.bytes() >= config.max_size) {
    reason = fmt::format("journal.max_size ({:.1f} MiB) is reached", static_cast<double>(config.max_size) / (1 << 20));
    remedy = "raise it, or let older segments go: journal.retention, holdfast journal prune";
  }
  if (std::exchange(refuses_why_, reason) == reason) return;
  journal_.writer().refuse_messages(reason);
  if (reason.empty())
    log(LogLevel::info, "journal", {{"note", "mail is written down again"}});
  else
    log(LogLevel::error, "journal", {{"problem", reason}, {"remedy", remedy}});
}

/// Where all was taken away, and not this alone, another journal is to be begun.
void JournalWatch::watch_key_ring() {
  if (!journal_.displaced().empty()) return;
  const std::string path = journal::KeyRing::path_in(journal_.path());
  auto had_to_be = journal_.put_key_ring_back();
  std::string problem = had_to_be ? "" : had_to_be.error().message;
  if (had_to_be && *had_to_be) {
    log(LogLevel::error, "journal",
        {{"problem", path + " was removed or emptied, and put back: without it nothing here can be read"}, {"remedy", "find out by whom"}});
    alert_("KEY RING was removed, and put back");
  }
  if (std::exchange(key_ring_problem_, problem) == problem || problem.empty()) return;
  log(LogLevel::error, "journal",
      {{"problem", path + " was removed or emptied, and cannot be put back: " + problem},
       {"remedy", "do not stop Holdfast before it is there again"}});
  alert_("KEY RING was removed, and cannot be put back: " + problem);
}

/// What is in memory would be the last that opens the journal.
void JournalWatch::watch_key_file(const JournalConfig& config) {
  if (key_look_ && !key_look_->is_done) return;
  if (key_look_) take_key_look(std::exchange(key_look_, nullptr)->found);
  bool is_for_another = config.path != journal_.path();  // a reload's, for after a restart
  if (Clock::now() < next_key_look_ || is_for_another || !journal_.displaced().empty()) return;
  next_key_look_ = Clock::now() + key_look_interval;
  auto look = std::make_shared<KeyLook>();
  try {
    std::thread([look, keys = journal_.keys(), source = config.key] {
      look->found = keys.check_key_file(source);
      look->is_done = true;
    }).detach();
    key_look_ = look;
  } catch (const std::system_error&) {  // no more threads: another time
  }
}

void JournalWatch::take_key_look(const Status& found) {
  std::string problem = found ? "" : found.error().message;
  if (std::exchange(key_file_problem_, problem) == problem) return;
  if (problem.empty()) return log(LogLevel::info, "journal", {{"note", "the master key is at its place again"}});
  log(LogLevel::error, "journal",
      {{"problem", "after a restart nothing here could be read: " + problem},
       {"remedy",
        "do not stop Holdfast; put the master key back from where you keep its copy, or, where there is none: holdfast journal rekey --lost"}});
  alert_("MASTER KEY is not there: " + problem);
}

}  // namespace holdfast::proxy
