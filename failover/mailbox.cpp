#include "failover/mailbox.h"

#include <algorithm>
#include <deque>
#include <string_view>
#include <unordered_map>

#include "journal/catalog.h"

namespace holdfast::failover {
namespace {

using journal::Outcome;
using journal::Term;

constexpr std::size_t batch = 1000;

}  // namespace

StoredMessage* Mailbox::View::find(std::uint32_t uid) {
  auto found =
      std::lower_bound(messages.begin(), messages.end(), uid, [](const StoredMessage& one, std::uint32_t wanted) { return one.uid < wanted; });
  return found != messages.end() && found->uid == uid ? &*found : nullptr;
}

const StoredMessage* Mailbox::View::find(std::uint32_t uid) const { return const_cast<View*>(this)->find(uid); }

Status Mailbox::open() {
  auto folders = store_.folders(person_);
  if (!folders) return folders.error();
  for (Folder& folder : *folders) {
    if (folder.is_gone) {
      gone_.push_back(std::move(folder));
      continue;
    }
    auto view = std::make_shared<View>();
    view->folder = std::move(folder);
    views_.push_back(std::move(view));
  }
  for (auto [name, use] : {std::pair(inbox, ""), {"Sent", sent_use}, {"Drafts", "\\Drafts"}, {"Trash", "\\Trash"}, {"Junk", "\\Junk"}}) {
    if (find(name)) continue;
    if (Status created = create(name); !created) return created;
    find(name)->folder.use = use;
    MailboxChange change;
    change.folders.push_back(find(name)->folder);
    if (Status stored = apply(change); !stored) return stored;
  }
  return {};
}

Status Mailbox::apply(const MailboxChange& change) {
  if (is_closed_) return Error{ErrorCode::not_found, "this mailbox was removed"};
  return store_.apply(person_, change);
}

Mailbox::ViewPtr Mailbox::find(const std::string& name) const {
  for (const ViewPtr& view : views_)
    if (view->folder.name == with_inbox_in_capitals(name)) return view;
  return nullptr;
}

std::vector<Mailbox::ViewPtr> Mailbox::folders() const {
  std::vector<ViewPtr> all = views_;
  std::sort(all.begin(), all.end(), [](const ViewPtr& a, const ViewPtr& b) {
    return std::pair(a->folder.name != inbox, a->folder.name) < std::pair(b->folder.name != inbox, b->folder.name);
  });
  return all;
}

std::vector<std::string> Mailbox::lost_subscriptions() const {
  std::vector<std::string> names;
  for (const Folder& folder : gone_) names.push_back(folder.name);
  return names;
}

Result<Mailbox::ViewPtr> Mailbox::view(const std::string& name) {
  ViewPtr view = find(name);
  if (!view) return Error{ErrorCode::not_found, "there is no such folder"};
  if (Status loaded = load(*view); !loaded) return loaded.error();
  return view;
}

Status Mailbox::load(View& view) {
  if (view.is_loaded) return {};
  auto messages = store_.messages(person_, view.folder.id);
  if (!messages) return messages.error();
  view.messages = std::move(*messages);
  view.is_loaded = true;
  // Segments that retention has taken away are gone here too.
  RecordId first = journal_.first_id();
  std::vector<std::uint32_t> pruned;
  for (const StoredMessage& message : view.messages)
    if (message.entry != 0 && message.entry < first) pruned.push_back(message.uid);
  return expunge(view, pruned);
}

bool Mailbox::is_own(std::string_view address) const {
  return own_.count(directory_.canonical(address)) > 0 || own_.count(directory_.canonical(journal::without_tag(address))) > 0;
}

bool was_under_way(const journal::Recipient& recipient) {
  return recipient.outcome == Outcome::abandoned && recipient.reply == journal::stopped_before_answer;
}

/// What became of an entry for this person, in this folder. open: that is not known yet. perhaps_taken: Holdfast stopped before it was
/// known; the sender may have been told that it was taken, or may come again.
Mailbox::Standing Mailbox::standing(const journal::Entry& entry, Term term) const {
  if (entry.message.session == return_session) return Standing::not_taken;
  bool is_outbound = entry.message.direction == journal::Direction::outbound;
  Standing standing = Standing::not_taken;
  for (const journal::Recipient& recipient : entry.message.recipients) {
    bool counts = term == Term::sender ? is_outbound && is_own(entry.message.mail_from) : is_own(recipient.address);
    if (!counts) continue;
    bool is_open = recipient.outcome == Outcome::pending;
    bool was_taken = recipient.outcome == Outcome::forwarded || recipient.outcome == Outcome::held || recipient.outcome == Outcome::delivered ||
                     recipient.outcome == Outcome::bounced || recipient.outcome == Outcome::expired;
    standing = std::max(standing, was_taken                  ? Standing::taken
                                  : was_under_way(recipient) ? Standing::perhaps_taken
                                  : is_open                  ? Standing::open
                                                             : Standing::not_taken);
  }
  return standing;
}

/// Whether the entry is the same mail as another one that is shown, and one of them may not count: its sender came again with it.
bool Mailbox::is_second_copy(const journal::Entry& entry, Standing standing, RecordId other) const {
  auto first = journal_.settled_entry(other);
  if (!first) return false;  // erased, or damaged
  bool is_same = first->message.content_hash == entry.message.content_hash;
  return is_same && (standing == Standing::perhaps_taken || this->standing(*first, Term::recipient) == Standing::perhaps_taken);
}

Status Mailbox::refresh() {
  RecordId indexed = journal_.indexed();
  if (indexed == indexed_) return {};
  if (std::uint64_t version = directory_.version(); version != directory_version_) {
    std::vector<std::string> addresses = directory_.addresses_of(person_);
    own_ = {addresses.begin(), addresses.end()};
    directory_version_ = version;
  }
  for (const ViewPtr& view : views_) {
    bool is_inbox = view->folder.name == inbox, is_sent = view->folder.use == sent_use;
    if (!is_inbox && !is_sent) continue;
    if (Status looked = look_through(*view, is_inbox ? Term::recipient : Term::sender, indexed); !looked) return looked;
  }
  indexed_ = indexed;
  return {};
}

/// Entries that may belong into the folder: those that were not settled when it was looked last, and those that came since. The folder
/// knows then how far it was looked.
Result<std::set<RecordId>> Mailbox::candidates(Folder& folder, Term term, RecordId indexed) const {
  // A mailbox shows all that there was for its addresses when it was first opened. An address that is the
  // person's only later (again, perhaps) was somebody else's until then.
  bool is_first_look = folder.looked_through.empty();
  std::erase_if(folder.looked_through, [&](const auto& one) { return own_.count(one.first) == 0; });
  std::set<RecordId> candidates = std::exchange(folder.waiting, {});
  for (const std::string& address : own_) {
    auto known = folder.looked_through.find(address);
    RecordId from = known != folder.looked_through.end() ? known->second : is_first_look ? 0 : indexed;
    for (bool has_more = from < indexed; has_more;) {
      auto found = journal_.find_after(term, address, from, batch);
      if (!found) return found.error();
      candidates.insert(found->begin(), found->end());
      has_more = found->size() == batch;
      if (has_more) from = found->back();
    }
    folder.looked_through[address] = indexed;
  }
  return candidates;
}

namespace {

/// The entry as the folder's next message.
StoredMessage next_message(Folder& folder, const journal::Entry& entry, Term term) {
  StoredMessage message;
  message.uid = folder.uid_next++;
  message.entry = entry.id;
  message.flags = term == Term::sender ? Flag::seen : 0;
  message.date_us = entry.message.time_us;
  message.size = entry.message.size;
  message.message_id = entry.message.message_id;
  message.modseq = ++folder.modseq;
  return message;
}

}  // namespace

Status Mailbox::look_through(View& view, Term term, RecordId indexed) {
  if (Status loaded = load(view); !loaded) return loaded;
  Folder folder = view.folder;
  auto candidates = this->candidates(folder, term, indexed);
  if (!candidates) return candidates.error();
  bool is_first_look = view.folder.looked_through.empty();
  bool has_other_addresses = view.folder.looked_through.size() != folder.looked_through.size();
  if (candidates->empty() && !is_first_look && !has_other_addresses) {
    // Nothing for this person: how far it was looked is written with the next message.
    view.folder = std::move(folder);
    return {};
  }
  std::set<RecordId> there;
  std::unordered_map<std::string_view, RecordId> by_message_id;
  by_message_id.reserve(view.messages.size());
  for (const StoredMessage& message : view.messages) {
    if (message.entry != 0) there.insert(message.entry);
    by_message_id.emplace(message.message_id, message.entry);
  }
  MailboxChange change;
  std::deque<StoredMessage> added;  // by_message_id looks at what is in it
  for (RecordId id : *candidates) {
    if (there.count(id) > 0) continue;
    auto entry = journal_.settled_entry(id);
    if (!entry) continue;  // erased, or damaged
    Standing standing = this->standing(*entry, term);
    if (standing == Standing::open) folder.waiting.insert(id);
    if (standing == Standing::open || standing == Standing::not_taken) continue;
    auto other = by_message_id.find(entry->message.message_id);
    if (other != by_message_id.end() && !entry->message.message_id.empty()) {
      // In Sent a message is once, though it went by several routes, or the mail program has put it there itself.
      if (term == Term::sender) continue;
      if (other->second != 0 && is_second_copy(*entry, standing, other->second)) continue;
    }
    added.push_back(next_message(folder, *entry, term));
    change.messages.emplace_back(folder.id, added.back());
    by_message_id.emplace(added.back().message_id, id);
  }
  change.folders.push_back(folder);
  if (Status stored = apply(change); !stored) return stored;
  view.folder = std::move(folder);
  view.messages.insert(view.messages.end(), added.begin(), added.end());
  return {};
}

}  // namespace holdfast::failover
