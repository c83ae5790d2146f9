#include "proxy/feed.h"

#include <fmt/format.h>
#include <pthread.h>

#include <algorithm>
#include <chrono>
#include <fstream>

#include "failover/mailbox.h"
#include "journal/files.h"
#include "proxy/json.h"
#include "proxy/log.h"

namespace holdfast::proxy {
namespace {

constexpr auto feed_glance = std::chrono::milliseconds(500);
constexpr auto longest_feed_pause = std::chrono::minutes(10);
constexpr std::int64_t second_us = 1'000'000, longest_put_off_us = 600 * second_us;
constexpr std::size_t messages_a_pass = 100;

std::string path_in(const std::string& journal) { return journal + "/feed.json"; }

}  // namespace

Feed::Feed(journal::Journal& journal, const Config& config) : journal_(journal), config_(config) {}

Result<std::unique_ptr<Feed>> Feed::start(journal::Journal& journal, const Config& config) {
  std::unique_ptr<Feed> feed(new Feed(journal, config));
  if (Status loaded = feed->load(); !loaded) return loaded.error();
  feed->thread_ = std::thread([own = feed.get()] { own->run(); });
  return feed;
}

Feed::~Feed() {
  {
    std::lock_guard lock(mutex_);
    is_stopping_ = true;
  }
  wake_.notify_one();
  if (thread_.joinable()) thread_.join();
}

Json Feed::state() const {
  std::lock_guard lock(mutex_);
  return {{"to", "lmtp://" + to_string(*config_.mailbox.feed)}, {"put_off", put_off_}, {"problem", problem_}};
}

bool Feed::is_stopping() const {
  std::lock_guard lock(mutex_);
  return is_stopping_;
}

Status Feed::load() {
  std::ifstream file(path_in(journal_.path()));
  if (!file) {
    // The first start: what was there before belongs to the other store's own past.
    position_ = since_ = journal_.indexed();
    return save();
  }
  try {
    Json state = Json::parse(file);
    position_ = state.at("position").get<journal::RecordId>();
    since_ = state.value("since", journal::RecordId{0});
    for (const auto& one : state.at("later")) {
      Later& later = later_[one.at("entry").get<journal::RecordId>()];
      later.recipients = one.at("recipients").get<std::set<std::uint32_t>>();
    }
    return {};
  } catch (const Json::exception&) {
    return Error{ErrorCode::corrupt,
                 fmt::format("{}: damaged; nothing is fed. Remove it to feed only what comes from the next start on", path_in(journal_.path()))};
  }
}

Status Feed::save() {
  Json state = {{"since", since_}, {"position", position_}, {"later", Json::array()}};
  auto add = [&](journal::RecordId id, const std::set<std::uint32_t>& recipients) {
    state["later"].push_back({{"entry", id}, {"recipients", recipients}});
  };
  for (const auto& [id, later] : later_) add(id, later.recipients);
  for (const auto& [id, one] : under_way_) add(id, one.recipients);
  return journal::write_file(path_in(journal_.path()), to_line(state) + "\n");
}

void Feed::run() {
  pthread_setname_np(pthread_self(), "feed");
  std::chrono::milliseconds pause = feed_glance;
  while (!is_stopping()) {
    ReplayOptions options;
    options.to = "lmtp://" + to_string(*config_.mailbox.feed);
    options.concurrency = 1;  // in order
    auto target = open_smtp_target("lmtp", *config_.mailbox.feed, options, config_);
    Status ran = target ? (*target)->run(*this) : target.error();
    // What was on its way when the connection was lost is tried again.
    for (auto& [id, one] : under_way_) put_off(id, std::move(one.recipients), one.pause_us);
    under_way_.clear();
    std::string problem = ran ? "" : ran.error().message;
    pause = problem.empty() ? feed_glance : std::min<std::chrono::milliseconds>(pause * 2, longest_feed_pause);
    std::unique_lock lock(mutex_);
    if (!problem.empty() && problem != problem_) log(LogLevel::warning, "feed", {{"server", options.to}, {"problem", problem}});
    if (problem.empty() && !problem_.empty()) log(LogLevel::info, "feed", {{"server", options.to}, {"result", "goes on"}});
    problem_ = problem;
    put_off_ = later_.size();
    wake_.wait_for(lock, pause, [this] { return is_stopping_; });
  }
}

void Feed::put_off(journal::RecordId id, std::set<std::uint32_t> recipients, std::int64_t last_pause_us) {
  std::int64_t pause_us = last_pause_us == 0 ? second_us : std::min(last_pause_us * 2, longest_put_off_us);
  later_[id] = {std::move(recipients), journal::now_us() + pause_us, pause_us};
}

/// Leaves out whom the store has had the same mail for: nobody knows whether the sender of what was under way when Holdfast stopped
/// was told that it was taken, and it may have come again.
void Feed::leave_out_copies(const journal::Entry& entry, std::vector<std::uint32_t>& recipients) {
  if (entry.message.message_id.empty()) return;
  auto ids = journal_.find_after(journal::Term::message_id, entry.message.message_id, since_, messages_a_pass);
  if (!ids) return;  // rather twice than not at all
  for (journal::RecordId id : *ids) {
    if (id >= entry.id) return;
    auto earlier = journal_.settled_entry(id);
    if (!earlier || earlier->message.content_hash != entry.message.content_hash) continue;
    std::erase_if(recipients, [&](std::uint32_t index) {
      const journal::Recipient& mine = entry.message.recipients[index];
      const auto& theirs = earlier->message.recipients;
      return std::any_of(theirs.begin(), theirs.end(), [&](const journal::Recipient& one) {
        return one.address == mine.address && (failover::was_under_way(one) || failover::was_under_way(mine));
      });
    });
  }
}

/// The entry for those of its recipients who are to have it. Null when there is none, or not yet.
///
/// @param before  how it was put off; null when it was not
std::unique_ptr<ReplayItem> Feed::item(journal::RecordId id, const Later* before) {
  auto entry = journal_.settled_entry(id);
  if (!entry) {
    bool is_erased = entry.error().code == ErrorCode::not_found;
    if (!is_erased) log(LogLevel::error, "feed", {{"entry", id}, {"problem", entry.error().message}});
    return nullptr;
  }
  const auto& routes = config_.routes;
  bool is_outward =
      std::any_of(routes.begin(), routes.end(), [&](const RouteConfig& one) { return one.is_egress && one.name == entry->message.route; });
  if (is_outward || entry->message.session == failover::return_session) return nullptr;
  auto item = std::make_unique<ReplayItem>();
  const std::int64_t last_pause_us = before ? before->pause_us : 0;
  std::set<std::uint32_t> open;
  for (std::uint32_t i = 0; i < entry->message.recipients.size(); ++i) {
    if (before && before->recipients.count(i) == 0) continue;
    using journal::Outcome;
    Outcome outcome = entry->message.recipients[i].outcome;
    if (outcome == Outcome::pending) open.insert(i);
    if (outcome == Outcome::forwarded || outcome == Outcome::held || outcome == Outcome::delivered ||
        failover::was_under_way(entry->message.recipients[i]))
      item->recipients.push_back(i);
  }
  if (!open.empty()) {
    for (std::uint32_t i : item->recipients) open.insert(i);
    put_off(id, std::move(open), last_pause_us);
    return nullptr;
  }
  leave_out_copies(*entry, item->recipients);
  if (item->recipients.empty()) return nullptr;
  item->entry = std::move(*entry);
  item->payload = payload_of(item->entry, [this, copy = item->entry](std::uint32_t index) { return journal_.frame(copy, index); });
  under_way_[id] = {{item->recipients.begin(), item->recipients.end()}, 0, last_pause_us};
  return item;
}

std::unique_ptr<ReplayItem> Feed::next() {
  if (is_stopping()) return nullptr;
  // Whichever has waited longest, so that none keeps the others waiting.
  auto is_due_before = [](const auto& one, const auto& other) { return one.second.due_us < other.second.due_us; };
  for (;;) {
    auto first = std::min_element(later_.begin(), later_.end(), is_due_before);
    if (first == later_.end() || first->second.due_us > journal::now_us()) break;
    auto [id, before] = std::move(*first);
    later_.erase(first);
    if (auto found = item(id, &before)) return found;
  }
  auto tell = [this](const Error& error) {
    if (told_.insert(error.message).second) log(LogLevel::error, "feed", {{"problem", error.message}, {"result", "what cannot be read is not fed"}});
  };
  auto ids = journal_.messages_after(position_, messages_a_pass, tell);
  if (!ids) return tell(ids.error()), nullptr;
  journal::RecordId indexed = journal_.indexed();
  for (journal::RecordId id : *ids) {
    if (id > indexed) break;  // its outcome may not be known yet
    position_ = id;
    if (auto found = item(id, nullptr)) return found;
  }
  return nullptr;
}

void Feed::done(const ReplayResult& result) {
  auto [left, due_us, last_pause_us] = std::move(under_way_[result.id]);
  under_way_.erase(result.id);
  for (std::uint32_t served : result.served) left.erase(served);
  for (std::uint32_t refused : result.refused) left.erase(refused);
  if (!result.refused.empty()) log(LogLevel::warning, "feed", {{"entry", result.id}, {"refused", result.refused.size()}, {"reply", result.detail}});
  if (!left.empty()) put_off(result.id, std::move(left), last_pause_us);
  if (Status saved = save(); !saved) log(LogLevel::error, "feed", {{"problem", saved.error().message}});
}

}  // namespace holdfast::proxy
