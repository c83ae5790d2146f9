#include "proxy/keeper.h"

#include <pthread.h>

#include <algorithm>

#include "proxy/command.h"
#include "proxy/log.h"

namespace holdfast::proxy {
namespace {

constexpr std::string_view ehlo_prefix = "ehlo:", opening_prefix = "opening:", learned_to_name = "learned-to";
/// The disk need not know how long an opening takes more exactly than this, in milliseconds.
constexpr std::int64_t opening_step = 250;
/// So many records may be learned from once more after a kill: where it stands is not stored more often. And so many entries while the start waits.
constexpr journal::RecordId most_records_again = 10'000;
constexpr std::size_t most_at_start = 5'000;
/// What is learned is believed for so long, or about.
constexpr auto usual_term = std::chrono::hours(90 * 24);
/// Entries that are learned from before the next look at whether to stop.
constexpr std::size_t entries_a_pass = 256;

}  // namespace

Keeper::Keeper(journal::Journal& journal, std::unique_ptr<journal::SealedStore> store, failover::Directory& directory, Boards& boards)
    : journal_(journal), store_(std::move(store)), directory_(directory), boards_(boards) {}

void Keeper::start() {
  load();
  learn_from_journal(most_at_start);
  thread_ = std::thread([this] { run(); });
}

void Keeper::stop() {
  if (!thread_.joinable()) return;
  {
    std::lock_guard lock(mutex_);
    is_stopping_ = true;
  }
  wake_.notify_one();
  thread_.join();
}

bool Keeper::is_stopping() {
  std::lock_guard lock(mutex_);
  return is_stopping_;
}

void Keeper::load() {
  Status loaded = directory_.load(*store_);
  Status read = store_->each([this](journal::SealedStore::Item& item) {
    if (item.name == learned_to_name) learned_to_ = stored_to_ = parse_number(item.value).value_or(0);
    if (item.name.starts_with(opening_prefix)) {
      RouteBoard& of = boards_.of(item.name.substr(opening_prefix.size()));
      of.stored_opening = static_cast<std::int64_t>(parse_number(item.value).value_or(0));
      of.opening_takes.store(of.stored_opening, std::memory_order_relaxed);
    }
    if (!item.name.starts_with(ehlo_prefix)) return true;
    Reply reply;
    std::size_t consumed = 0;
    if (ReplyParser().parse(item.value, reply, consumed) == ReplyParser::State::complete) {
      RouteBoard& on = boards_.of(item.name.substr(ehlo_prefix.size()));
      on.learn_ehlo(reply);
      on.take_new_ehlo();
    }
    return true;
  });
  if (!read) log(LogLevel::error, "directory", {{"problem", read.error().message}});
  if (loaded) return;
  log(LogLevel::error, "directory", {{"problem", loaded.error().message}, {"remedy", "what was imported must be imported again"}});
  learned_to_ = stored_to_ = 0;
}

void Keeper::run() {
  pthread_setname_np(pthread_self(), "keeper");
  Deadline told_until{};
  for (bool is_last = false; !is_last;) {
    learn_from_journal(SIZE_MAX);
    {
      std::unique_lock lock(mutex_);
      is_last = wake_.wait_for(lock, std::chrono::seconds(1), [this] { return is_stopping_; });
    }
    store();
    clock_.look(journal::now_us(), std::chrono::steady_clock::now());
    if (clock_.is_trusted_after(usual_term)) directory_.forget_aged(journal::now_us());
    if (std::string domain = directory_.take_lost_domain(); !domain.empty())
      log(LogLevel::warning, "directory",
          {{"problem", "one after the other, people who were known are refused at " + domain + ", and nobody is taken"},
           {"result", "they stay known: the primary seems to have lost them"}});
    if (!directory_.take_overflow() || Clock::now() < told_until) continue;
    log(LogLevel::warning, "directory",
        {{"problem", "directory.max_learned is reached: not all recipients are remembered"},
         {"remedy", "raise it, or let the directory come from LDAP or a file"}});
    told_until = Clock::now() + std::chrono::hours(1);
  }
}

/// From the entries of before the start that were not learned from yet, at most so many; sessions learn from those that come now.
void Keeper::learn_from_journal(std::size_t most) {
  const journal::RecordId end = journal_.last_before();
  auto tell = [](const Error& error) {
    log(LogLevel::error, "directory",
        {{"problem", "the journal does not tell all recipients: " + error.message}, {"result", "those that are missing are learned anew"}});
  };
  while (learned_to_ < end && most > 0 && !is_stopping()) {
    auto found = journal_.messages_after(learned_to_, std::min(most, entries_a_pass), tell);
    if (!found) {
      tell(found.error());
      learned_to_ = end;
      return;
    }
    learned_to_ = found->empty() ? end : std::min(end, found->back());
    most -= found->size();
    for (journal::RecordId id : *found)
      if (auto entry = journal_.entry(id)) learn_from(*entry);
  }
}

/// As sessions learn: from what the primary said to RCPT, and to a whole message for one. To who has logged in it says whether he may send
/// there, so that tells nothing.
void Keeper::learn_from(const journal::Entry& entry) {
  const journal::MessageRecord& message = entry.message;
  if (message.direction != journal::Direction::inbound || !message.auth.empty()) return;
  const std::int64_t now_us = journal::now_us(), then_us = journal_.written_us(entry.id, message.time_us);
  for (const journal::Recipient& one : message.recipients) {
    bool exists = one.outcome == journal::Outcome::pending;
    bool is_refused = one.outcome == journal::Outcome::rejected && failover::says_unknown(one.reply);
    if (exists || is_refused) directory_.learn_of_before(one.address, exists, one.reply, then_us, now_us);
  }
  if (message.recipients.size() != 1) return;
  auto settled = journal_.settled_entry(entry.id);
  if (!settled) return;
  const journal::Recipient& one = settled->message.recipients.front();
  if (one.outcome == journal::Outcome::rejected && failover::says_unknown(one.reply))
    directory_.learn_of_before(one.address, false, one.reply, then_us + 1, now_us);
}

void Keeper::store() {
  if (Status stored = store_all(); !stored) log(LogLevel::error, "directory", {{"problem", stored.error().message}});
}

Status Keeper::store_all() {
  // Whatever is in the log by now was learned before it came there.
  bool has_learned_all = learned_to_ >= journal_.last_before();
  if (has_learned_all) learned_to_ = std::max(learned_to_, journal_.writer().state().last_id);
  const journal::RecordId learned_to = learned_to_;
  for (RouteBoard* board : boards_.all()) {
    if (std::optional<Reply> ehlo = board->take_new_ehlo()) unstored_[std::string(ehlo_prefix) + board->name] = ehlo->wire;
    std::int64_t takes = board->opening_takes.load(std::memory_order_relaxed) / opening_step * opening_step;
    if (takes != std::exchange(board->stored_opening, takes)) unstored_[std::string(opening_prefix) + board->name] = std::to_string(takes);
  }
  std::vector<journal::SealedStore::Item> items;
  for (const auto& [name, value] : unstored_) items.push_back({name, value});
  Status stored = items.empty() ? Status() : store_->put(items);
  if (stored) unstored_.clear();
  if (stored) stored = directory_.store(*store_);
  bool is_due = learned_to >= stored_to_ + most_records_again || (is_stopping() && learned_to > stored_to_);
  if (!stored || !is_due) return stored;
  stored = store_->put({{std::string(learned_to_name), std::to_string(learned_to)}});
  if (stored) stored_to_ = learned_to;
  return stored;
}

}  // namespace holdfast::proxy
