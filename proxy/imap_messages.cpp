// ImapSession: messages of the selected folder (RFC 3501 6.4; RFC 4315, 4731, 5256, 6851, 7162).
#include <fmt/format.h>

#include <algorithm>

#include "proxy/imap_format.h"
#include "proxy/imap_session.h"
#include "proxy/log.h"

namespace holdfast::proxy {
namespace {

/// Of one message.
constexpr std::size_t most_keywords = 50, longest_keyword = 50;
/// Of a folder: what is said of its keywords is a list for people.
constexpr std::size_t most_shown_keywords = 500;

constexpr std::pair<const char*, std::uint8_t> system_flags[] = {{"\\Answered", failover::answered},
                                                                 {"\\Flagged", failover::flagged},
                                                                 {"\\Deleted", failover::deleted},
                                                                 {"\\Seen", failover::seen},
                                                                 {"\\Draft", failover::draft}};

/// "1:3,7".
std::string set_of(const std::vector<std::uint32_t>& numbers) {
  std::string out;
  for (std::size_t i = 0; i < numbers.size();) {
    std::size_t last = i;
    while (last + 1 < numbers.size() && numbers[last + 1] == numbers[last] + 1) ++last;
    out += fmt::format("{}{}", out.empty() ? "" : ",", numbers[i]);
    if (last > i) out += fmt::format(":{}", numbers[last]);
    i = last + 1;
  }
  return out;
}

/// RFC 3501 6.4.6, RFC 7162 3.1.3.
struct StoreRequest {
  SequenceSet set;
  std::optional<std::uint64_t> unchanged_since;
  char how = '=';  ///< + adds the flags, - takes them away, = puts them in place of all
  bool is_silent = false;
  std::vector<std::string> flags;
};

std::optional<StoreRequest> read_store(ImapText& text) {
  StoreRequest request;
  std::optional<SequenceSet> set = text.space() ? text.sequence_set() : std::nullopt;
  if (!set || !text.space()) return std::nullopt;
  request.set = std::move(*set);
  if (text.take('(')) {
    if (!text.word("UNCHANGEDSINCE") || !text.space()) return std::nullopt;
    request.unchanged_since = text.number();
    if (!request.unchanged_since || !text.take(')') || !text.space()) return std::nullopt;
  }
  request.how = text.take('+') ? '+' : text.take('-') ? '-' : '=';
  request.is_silent = text.word("FLAGS.SILENT");
  if (!request.is_silent && !text.word("FLAGS")) return std::nullopt;
  std::optional<std::vector<std::string>> flags = text.space() ? text.flags() : std::nullopt;
  if (!flags || !text.at_end()) return std::nullopt;
  request.flags = std::move(*flags);
  return request;
}

}  // namespace

bool set_flag(failover::StoredMessage& message, const std::string& name, bool is_set) {
  for (auto [flag, bit] : system_flags)
    if (is_same_name(flag, name)) {
      message.flags = static_cast<std::uint8_t>(is_set ? message.flags | bit : message.flags & ~bit);
      return true;
    }
  if (name.starts_with('\\')) return is_same_name(name, "\\Recent");  // which nobody can set
  if (!is_set) {
    message.keywords.erase(name);
    return true;
  }
  if (message.keywords.size() >= most_keywords || name.size() > longest_keyword) return false;
  message.keywords.insert(name);
  return true;
}

std::string ImapSession::flags_of(const failover::StoredMessage& message) const {
  std::string out;
  for (auto [flag, bit] : system_flags)
    if (message.flags & bit) out += (out.empty() ? "" : " ") + std::string(flag);
  for (const std::string& keyword : message.keywords) out += (out.empty() ? "" : " ") + keyword;
  return out;
}

std::uint32_t ImapSession::number_of(std::uint32_t uid) const {
  auto found = std::lower_bound(uids_.begin(), uids_.end(), uid);
  return found != uids_.end() && *found == uid ? static_cast<std::uint32_t>(found - uids_.begin() + 1) : 0;
}

/// UIDs that a set means, ascending.
std::vector<std::uint32_t> ImapSession::chosen(const SequenceSet& set, bool by_uid) const {
  std::uint32_t largest = by_uid ? (uids_.empty() ? 0 : uids_.back()) : static_cast<std::uint32_t>(uids_.size());
  using Span = std::pair<std::size_t, std::size_t>;
  std::vector<Span> spans;  // of places in uids_; they may overlap
  for (auto [first, last] : set.ranges) {
    if (first == 0) first = largest;
    if (last == 0) last = largest;
    if (first > last) std::swap(first, last);
    std::size_t begin, end;
    if (by_uid) {
      begin = static_cast<std::size_t>(std::lower_bound(uids_.begin(), uids_.end(), first) - uids_.begin());
      end = static_cast<std::size_t>(std::upper_bound(uids_.begin(), uids_.end(), last) - uids_.begin());
    } else {
      begin = first == 0 ? 0 : first - 1;
      end = std::min<std::size_t>(last, uids_.size());
    }
    if (begin < end) spans.emplace_back(begin, end);
  }
  std::sort(spans.begin(), spans.end());
  std::vector<std::uint32_t> uids;
  std::size_t next = 0;
  for (auto [begin, end] : spans)
    for (next = std::max(next, begin); next < end; ++next) uids.push_back(uids_[next]);
  return uids;
}

/// What has changed in the folder since the client was last told. Numbers move only where the client expects
/// it.
void ImapSession::show_news(bool may_expunge) {
  if (!view_) return;
  if (view_->is_gone) return stop("the folder was deleted");
  if (may_expunge) {
    for (std::size_t i = uids_.size(); i > 0; --i)
      if (!view_->find(uids_[i - 1])) untagged(fmt::format("{} EXPUNGE", i));
    std::erase_if(uids_, [this](std::uint32_t uid) { return !view_->find(uid); });
  }
  std::uint32_t last = uids_.empty() ? 0 : uids_.back();
  bool has_new = !view_->messages.empty() && view_->messages.back().uid > last;
  if (view_->folder.modseq > shown_modseq_)
    for (const auto& message : view_->messages)
      if (message.modseq > shown_modseq_ && message.uid <= last && number_of(message.uid) > 0) show_flags(message, false);
  if (has_new) {
    auto first = std::upper_bound(view_->messages.begin(), view_->messages.end(), last,
                                  [](std::uint32_t uid, const auto& message) { return uid < message.uid; });
    for (; first != view_->messages.end(); ++first) uids_.push_back(first->uid);
    untagged(fmt::format("{} EXISTS", uids_.size()));
  }
  shown_modseq_ = view_->folder.modseq;
}

/// Remembers the message's keywords as shown. Whether one of them is new to the client.
bool ImapSession::has_new_keyword(const failover::StoredMessage& message) {
  std::size_t before = shown_keywords_.size();
  if (before < most_shown_keywords) shown_keywords_.insert(message.keywords.begin(), message.keywords.end());
  return shown_keywords_.size() > before;
}

/// RFC 3501 7.2.6: the flags that there are in this folder, and which of them are kept.
void ImapSession::show_flag_names() {
  std::string names;
  for (auto [flag, bit] : system_flags) names += (names.empty() ? "" : " ") + std::string(flag);
  for (const std::string& keyword : shown_keywords_) names += " " + keyword;
  untagged(fmt::format("FLAGS ({})", names));
  untagged(fmt::format("OK [PERMANENTFLAGS ({})] these are kept", is_read_only_ ? "" : names + " \\*"));
}

void ImapSession::show_flags(const failover::StoredMessage& message, bool with_uid) {
  if (has_new_keyword(message)) show_flag_names();
  std::string items = fmt::format("FLAGS ({})", flags_of(message));
  if (with_uid) items += fmt::format(" UID {}", message.uid);
  if (knows_condstore_) items += fmt::format(" MODSEQ ({})", message.modseq);
  untagged(fmt::format("{} FETCH ({})", number_of(message.uid), items));
}

Task<void> ImapSession::store(ImapText& text, bool by_uid) {
  std::optional<StoreRequest> request = read_store(text);
  if (!request) {
    bad("the arguments are not understood");
    co_return;
  }
  if (request->unchanged_since) learn_condstore();
  if (is_read_only_) {
    no("[READ-ONLY] the folder was opened for reading");
    co_return;
  }
  std::vector<std::uint32_t> uids = chosen(request->set, by_uid), modified;
  bool is_known = true;
  std::uint64_t before = view_->folder.modseq;
  Status done = mailbox_->update(*view_, uids, [&](failover::StoredMessage& message) {
    if (request->unchanged_since && message.modseq > *request->unchanged_since) {
      modified.push_back(by_uid ? message.uid : number_of(message.uid));
      return false;
    }
    failover::StoredMessage old = message;
    if (request->how == '=') {
      message.flags = 0;
      message.keywords.clear();
    }
    for (const std::string& flag : request->flags) is_known &= set_flag(message, flag, request->how != '-');
    return old.flags != message.flags || old.keywords != message.keywords;
  });
  if (!done) {
    no("[UNAVAILABLE] the flags could not be stored");
    co_return;
  }
  bool is_missing = false;
  for (std::uint32_t uid : uids) {
    const failover::StoredMessage* message = view_->find(uid);
    is_missing |= !message;
    if (!message) continue;
    bool has_changed = message->modseq > before;
    if (!request->is_silent) {
      show_flags(*message, by_uid);
    } else if (knows_condstore_ && has_changed) {
      untagged(fmt::format("{} FETCH (UID {} MODSEQ ({}))", number_of(uid), uid, message->modseq));
    }
    bool goes_on = co_await breathe();
    if (!goes_on) co_return;
  }
  if (shown_modseq_ >= before) shown_modseq_ = std::max(shown_modseq_, view_->folder.modseq);
  show_news(false);
  if (!is_known)
    no("[CANNOT] there is no such flag");
  else
    ok(modified.empty() ? (is_missing ? some_are_gone : "done") : fmt::format("[MODIFIED {}] others were changed meanwhile", set_of(modified)));
}

/// UIDs of messages that fit. False when the connection is over.
Task<bool> ImapSession::find(const SearchCommand& command, std::vector<std::uint32_t>& uids) {
  SearchKey key = folded(command.key);
  SearchScope scope{static_cast<std::uint32_t>(uids_.size()), uids_.empty() ? 0 : uids_.back(), journal::now_us() / 1000000};
  // Others may change the folder while this one lets them.
  std::vector<std::uint32_t> all = uids_;
  for (std::uint32_t number = 1; number <= all.size(); ++number) {
    const failover::StoredMessage* message = view_->find(all[number - 1]);
    if (!message) continue;
    ReadMessage content = read(*message);
    if (matches(key, content, number, scope)) uids.push_back(message->uid);
    bool goes_on = co_await breathe();
    if (!goes_on) co_return false;
  }
  co_return true;
}

namespace {

bool is_known_charset(const std::string& charset) { return is_same_name(charset, "US-ASCII") || is_same_name(charset, "UTF-8"); }

}  // namespace

Task<void> ImapSession::search(ImapText& text, bool by_uid) {
  std::optional<SearchCommand> command = text.space() ? parse_search(text) : std::nullopt;
  if (!command) {
    bad("the search is not understood");
    co_return;
  }
  if (!is_known_charset(command->charset)) {
    no("[BADCHARSET (US-ASCII UTF-8)] this charset is not known");
    co_return;
  }
  if (command->has_modseq) learn_condstore();
  std::vector<std::uint32_t> uids;
  bool is_done = co_await find(*command, uids);
  if (!is_done) co_return;
  std::vector<std::uint32_t> numbers;
  std::uint64_t modseq = 0;
  for (std::uint32_t uid : uids) {
    numbers.push_back(by_uid ? uid : number_of(uid));
    // RFC 7162 3.1.10: of the messages that the answer names.
    bool is_named =
        !command->is_extended || command->all || command->count || (command->min && uid == uids.front()) || (command->max && uid == uids.back());
    const auto* message = is_named ? view_->find(uid) : nullptr;
    if (message) modseq = std::max(modseq, message->modseq);
  }
  std::string suffix = command->has_modseq && !numbers.empty() ? fmt::format("MODSEQ {}", modseq) : "";
  if (command->is_extended) {
    std::string out = fmt::format("ESEARCH (TAG \"{}\"){}", tag_, by_uid ? " UID" : "");
    if (command->min && !numbers.empty()) out += fmt::format(" MIN {}", numbers.front());
    if (command->max && !numbers.empty()) out += fmt::format(" MAX {}", numbers.back());
    if (command->all && !numbers.empty()) out += " ALL " + set_of(numbers);
    if (command->count) out += fmt::format(" COUNT {}", numbers.size());
    if (!suffix.empty()) out += " " + suffix;
    untagged(out);
  } else {
    std::string out = "SEARCH";
    for (std::uint32_t number : numbers) out += fmt::format(" {}", number);
    if (!suffix.empty()) out += fmt::format(" ({})", suffix);
    untagged(out);
  }
  show_news(false);
  ok("done");
}

Task<void> ImapSession::sort(ImapText& text, bool by_uid) {
  std::optional<SortCommand> command = text.space() ? parse_sort(text) : std::nullopt;
  if (!command) {
    bad("the arguments are not understood");
    co_return;
  }
  if (!is_known_charset(command->search.charset)) {
    no("[BADCHARSET (US-ASCII UTF-8)] this charset is not known");
    co_return;
  }
  std::vector<std::uint32_t> uids;
  bool is_done = co_await find(command->search, uids);
  if (!is_done) co_return;
  std::vector<SortFacts> facts;
  bool needs_header = std::any_of(command->criteria.begin(), command->criteria.end(),
                                  [](const auto& one) { return one.first != SortCommand::By::arrival && one.first != SortCommand::By::size; });
  for (std::uint32_t uid : uids) {
    const failover::StoredMessage* message = view_->find(uid);
    if (!message) continue;
    std::uint32_t number = by_uid ? uid : number_of(uid);
    if (needs_header) {
      ReadMessage content = read(*message);
      facts.push_back(sort_facts(content, number));
    } else {
      facts.emplace_back();
      facts.back().number = number;
      facts.back().arrival_us = message->date_us;
      facts.back().size = message->size;
    }
    bool goes_on = co_await breathe();
    if (!goes_on) co_return;
  }
  sort_messages(facts, command->criteria);
  std::string out = "SORT";
  for (const SortFacts& one : facts) out += fmt::format(" {}", one.number);
  untagged(out);
  show_news(false);
  ok("done");
}

Task<void> ImapSession::thread(ImapText& text, bool by_uid) {
  bool has_space = text.space();
  bool by_references = has_space && text.word("REFERENCES");
  bool is_understood = by_references || (has_space && text.word("ORDEREDSUBJECT"));
  std::optional<std::string> charset = is_understood && text.space() ? text.astring() : std::nullopt;
  std::optional<SearchCommand> command = charset && text.space() ? parse_search(text) : std::nullopt;
  if (!command) {
    bad("the arguments are not understood");
    co_return;
  }
  if (!is_known_charset(*charset)) {
    no("[BADCHARSET (US-ASCII UTF-8)] this charset is not known");
    co_return;
  }
  std::vector<std::uint32_t> uids;
  bool is_done = co_await find(*command, uids);
  if (!is_done) co_return;
  std::vector<SortFacts> facts;
  for (std::uint32_t uid : uids) {
    const failover::StoredMessage* message = view_->find(uid);
    if (!message) continue;
    ReadMessage content = read(*message);
    facts.push_back(sort_facts(content, by_uid ? uid : number_of(uid)));
    bool goes_on = co_await breathe();
    if (!goes_on) co_return;
  }
  std::string threads = by_references ? thread_by_references(std::move(facts)) : thread_by_subject(std::move(facts));
  untagged(threads.empty() ? "THREAD" : "THREAD " + threads);
  show_news(false);
  ok("done");
}

void ImapSession::copy(ImapText& text, bool by_uid, bool moves) {
  std::optional<SequenceSet> set = text.space() ? text.sequence_set() : std::nullopt;
  if (!set) return bad("the arguments are not understood");
  std::optional<std::string> utf8 = folder_name(text);
  if (!utf8 || !text.at_end()) return bad("a folder's name was expected");
  if (moves && is_read_only_) return no("[READ-ONLY] the folder was opened for reading");
  auto to = mailbox_->view(*utf8);
  if (!to) return no((to.error().code == ErrorCode::not_found ? "[TRYCREATE] " : "[UNAVAILABLE] ") + to.error().message);
  std::vector<std::uint32_t> uids;
  for (std::uint32_t uid : chosen(*set, by_uid))
    if (view_->find(uid)) uids.push_back(uid);
  if (!moves && !has_room_for(uids.size() * failover::Mailbox::copy_size)) return;
  auto numbers = moves ? mailbox_->move(*view_, uids, **to) : mailbox_->copy(*view_, uids, **to);
  if (!numbers) return no(fmt::format("[UNAVAILABLE] the messages could not be {}", moves ? "moved" : "copied"));
  std::string where = numbers->empty() ? "" : fmt::format("[COPYUID {} {} {}] ", (*to)->folder.uid_validity, set_of(uids), set_of(*numbers));
  if (moves) {
    if (!where.empty()) untagged("OK " + where + "moved");
    where.clear();
  }
  show_news(moves || by_uid);
  ok(where + "done");
}

void ImapSession::expunge(ImapText& text, bool by_uid) {
  if (is_read_only_) return no("[READ-ONLY] the folder was opened for reading");
  std::vector<std::uint32_t> candidates = uids_, deleted;
  if (by_uid) {
    std::optional<SequenceSet> set = text.space() ? text.sequence_set() : std::nullopt;
    if (!set) return bad("the arguments are not understood");
    candidates = chosen(*set, true);
  }
  for (std::uint32_t uid : candidates)
    if (const auto* message = view_->find(uid); message && (message->flags & failover::deleted)) deleted.push_back(uid);
  if (Status done = mailbox_->expunge(*view_, deleted); !done) return no("[UNAVAILABLE] the messages could not be removed");
  show_news(true);
  ok(knows_condstore_ ? fmt::format("[HIGHESTMODSEQ {}] done", view_->folder.modseq) : "done");
}

}  // namespace holdfast::proxy
