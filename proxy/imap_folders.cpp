// ImapSession: folders (RFC 3501 6.3; RFC 5258, 5819, 6154, 7162).
#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "proxy/imap_format.h"
#include "proxy/imap_list.h"
#include "proxy/imap_session.h"
#include "proxy/log.h"

namespace holdfast::proxy {
/// A blank and a folder's name, in UTF-8.
std::optional<std::string> ImapSession::folder_name(ImapText& text) const {
  std::optional<std::string> name = text.space() ? text.astring() : std::nullopt;
  return name ? decode_mailbox_name(*name) : std::nullopt;
}

std::shared_ptr<failover::Mailbox::View> ImapSession::folder(ImapText& text, std::string_view code_if_missing) {
  std::optional<std::string> utf8 = folder_name(text);
  if (!utf8) return bad("a folder's name was expected"), nullptr;
  auto view = mailbox_->view(*utf8);
  if (view) return *view;
  if (view.error().code == ErrorCode::not_found) return no(fmt::format("[{}] {}", code_if_missing, view.error().message)), nullptr;
  log(LogLevel::error, "mailbox", {{"person", person_}, {"problem", view.error().message}});
  return no("[UNAVAILABLE] the mailbox cannot be read at this moment"), nullptr;
}

void ImapSession::list(ImapText& text, bool only_subscribed) {
  std::optional<ListRequest> request = only_subscribed ? parse_lsub(text) : parse_list(text);
  if (!request) return bad("the arguments are not understood");
  if (request->asks_for_separator) {
    untagged("LIST (\\Noselect) \"/\" \"\"");
    return ok("done");
  }
  std::vector<ListedName> names;
  for (const auto& view : mailbox_->folders()) names.push_back({view->folder.name, true, view->folder.is_subscribed, view->folder.use});
  for (const std::string& name : mailbox_->lost_subscriptions()) names.push_back({name, false, true});
  for (const ListedName& one : chosen_names(*request, names)) {
    untagged((only_subscribed ? "LSUB " : "LIST ") + listed(*request, one));
    if (request->status_items.empty() || !one.exists) continue;
    if (auto loaded = mailbox_->view(one.name))
      untagged(fmt::format("STATUS {} ({})", imap_string(encode_mailbox_name(one.name)), status_of(**loaded, request->status_items)));
  }
  ok("done");
}

std::string ImapSession::status_of(const failover::Mailbox::View& view, const std::vector<std::string>& items) const {
  std::string out;
  auto add = [&](const std::string& item, std::uint64_t value) { out += fmt::format("{}{} {}", out.empty() ? "" : " ", item, value); };
  for (const std::string& item : items) {
    if (item == "MESSAGES") add(item, view.messages.size());
    if (item == "RECENT") add(item, 0);
    if (item == "UIDNEXT") add(item, view.folder.uid_next);
    if (item == "UIDVALIDITY") add(item, view.folder.uid_validity);
    if (item == "HIGHESTMODSEQ") add(item, view.folder.modseq);
    if (item == "UNSEEN")
      add(item, static_cast<std::uint64_t>(
                    std::count_if(view.messages.begin(), view.messages.end(), [](const auto& one) { return (one.flags & failover::seen) == 0; })));
    if (item == "SIZE") {
      std::uint64_t sum = 0;
      for (const auto& one : view.messages) sum += one.size;
      add(item, sum);
    }
  }
  return out;
}

void ImapSession::status(ImapText& text) {
  auto view = folder(text);
  if (!view) return;
  auto items = text.space() ? parse_status_items(text) : std::nullopt;
  if (!items || !text.at_end()) return bad("the arguments are not understood");
  if (std::find(items->begin(), items->end(), "HIGHESTMODSEQ") != items->end()) learn_condstore();
  untagged(fmt::format("STATUS {} ({})", imap_string(encode_mailbox_name(view->folder.name)), status_of(*view, *items)));
  ok("done");
}

void ImapSession::select(ImapText& text, bool is_read_only) {
  view_.reset();
  uids_.clear();
  state_ = State::authenticated;
  auto view = folder(text);
  if (!view) return;
  if (text.space()) {
    if (!text.take('(') || !text.word("CONDSTORE") || !text.take(')')) return bad("the arguments are not understood");
    knows_condstore_ = true;
  }
  if (!text.at_end()) return bad("the arguments are not understood");
  view_ = view;
  is_read_only_ = is_read_only;
  state_ = State::selected;
  std::uint32_t first_unseen = 0;
  for (const auto& message : view->messages) {
    uids_.push_back(message.uid);
    if (first_unseen == 0 && (message.flags & failover::seen) == 0) first_unseen = static_cast<std::uint32_t>(uids_.size());
  }
  shown_modseq_ = view->folder.modseq;
  shown_keywords_.clear();
  for (const auto& message : view->messages) has_new_keyword(message);
  show_flag_names();
  untagged(fmt::format("{} EXISTS", uids_.size()));
  untagged("0 RECENT");
  if (first_unseen > 0) untagged(fmt::format("OK [UNSEEN {}] the first unseen one", first_unseen));
  untagged(fmt::format("OK [UIDVALIDITY {}] numbers keep their meaning", view->folder.uid_validity));
  untagged(fmt::format("OK [UIDNEXT {}] the next number", view->folder.uid_next));
  untagged(fmt::format("OK [HIGHESTMODSEQ {}] the last change", view->folder.modseq));
  ok(is_read_only ? "[READ-ONLY] selected" : "[READ-WRITE] selected");
}

void ImapSession::close(bool expunges) {
  if (expunges && !is_read_only_) {
    std::vector<std::uint32_t> deleted;
    for (const auto& message : view_->messages)
      if (message.flags & failover::deleted) deleted.push_back(message.uid);
    if (Status done = mailbox_->expunge(*view_, deleted); !done) return no("[UNAVAILABLE] " + done.error().message);
  }
  view_.reset();
  uids_.clear();
  state_ = State::authenticated;
  ok("closed");
}

namespace {

/// What the person did wrong, or what went wrong here.
std::string code_of(const Error& error) {
  return error.code == ErrorCode::invalid     ? "[CANNOT] "
         : error.code == ErrorCode::not_found ? "[NONEXISTENT] "
         : error.code == ErrorCode::no_space  ? "[OVERQUOTA] "
                                              : "[UNAVAILABLE] ";
}

}  // namespace

void ImapSession::create(ImapText& text) {
  std::optional<std::string> utf8 = folder_name(text);
  if (!utf8) return bad("a folder's name was expected");
  if (utf8->size() > 1 && utf8->back() == '/') utf8->pop_back();  // RFC 3501 6.3.3: only says that folders will be in it
  Status created = mailbox_->create(*utf8);
  if (created) return ok("created");
  no((created.error().message.find("already") != std::string::npos ? "[ALREADYEXISTS] " : code_of(created.error())) + created.error().message);
}

void ImapSession::remove(ImapText& text) {
  std::optional<std::string> utf8 = folder_name(text);
  if (!utf8) return bad("a folder's name was expected");
  Status removed = mailbox_->remove(*utf8);
  removed ? ok("deleted") : no(code_of(removed.error()) + removed.error().message);
}

void ImapSession::rename(ImapText& text) {
  std::optional<std::string> from_utf8 = folder_name(text);
  std::optional<std::string> to_utf8 = from_utf8 ? folder_name(text) : std::nullopt;
  if (!from_utf8 || !to_utf8) return bad("two folders' names were expected");
  Status renamed = mailbox_->rename(*from_utf8, *to_utf8);
  renamed ? ok("renamed") : no(code_of(renamed.error()) + renamed.error().message);
}

void ImapSession::subscribe(ImapText& text, bool is_subscribed) {
  std::optional<std::string> utf8 = folder_name(text);
  if (!utf8) return bad("a folder's name was expected");
  Status done = mailbox_->subscribe(*utf8, is_subscribed);
  done ? ok("done") : no(code_of(done.error()) + done.error().message);
}

/// The client has shown that it knows CONDSTORE; what it was not told at SELECT, it is told now (RFC 7162 3.1).
void ImapSession::learn_condstore() {
  bool is_news = !std::exchange(knows_condstore_, true);
  if (is_news && state_ == State::selected) untagged(fmt::format("OK [HIGHESTMODSEQ {}] the last change", view_->folder.modseq));
}

void ImapSession::enable(ImapText& text) {
  std::string enabled;
  while (text.space()) {
    std::optional<std::string> name = text.atom();
    if (!name) return bad("the arguments are not understood");
    if (is_same_name(*name, "CONDSTORE")) enabled = " CONDSTORE";
  }
  untagged("ENABLED" + enabled);
  if (!enabled.empty()) learn_condstore();
  ok("done");
}

/// Whether the person may put so much more there; says so when not.
bool ImapSession::has_room_for(std::uint64_t bytes) {
  auto own = mailbox_->own_bytes();
  std::uint64_t quota = worker_.settings->config.mailbox.quota;
  if (own && *own + bytes <= quota) return true;
  log(LogLevel::warning, "mailbox", {{"person", person_}, {"problem", own ? "mailbox.quota is reached" : own.error().message}});
  no(own ? "[OVERQUOTA] your emergency mailbox is full: delete drafts or copies that you do not need"
         : "[UNAVAILABLE] the mailbox cannot be read at this moment; try again");
  return false;
}

void ImapSession::append(ImapText& text) {
  auto view = folder(text, "TRYCREATE");
  if (!view) return;
  failover::StoredMessage message;
  message.date_us = journal::now_us();
  if (!text.space()) return bad("a message was expected");
  if (text.is_next('(')) {
    auto flags = text.flags();
    if (!flags || !text.space()) return bad("the flags are not understood");
    for (const std::string& flag : *flags)
      if (!set_flag(message, flag, true)) return bad("there is no such flag");
  }
  if (text.is_next('"')) {
    std::optional<std::int64_t> date = text.date_time();
    if (!date || !text.space()) return bad("the date is not understood");
    message.date_us = *date * 1000000;
  }
  std::optional<std::string> content = text.string();
  if (!content || !text.at_end()) return bad("a message was expected");
  if (content->empty()) return bad("the message is empty");
  if (!has_room_for(content->size())) return;
  std::string id = field_of(header_of(*content).of(*content), "Message-ID");
  if (std::size_t begin = id.find('<'), end = id.find('>'); begin != std::string::npos && end != std::string::npos && begin < end)
    message.message_id = id.substr(begin + 1, end - begin - 1);
  auto uid = mailbox_->append(*view, *content, std::move(message));
  if (!uid) return no(code_of(uid.error()) + "the message could not be stored");
  show_news(true);
  ok(fmt::format("[APPENDUID {} {}] stored", view->folder.uid_validity, *uid));
}

}  // namespace holdfast::proxy
