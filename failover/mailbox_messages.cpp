// What a person does with messages: flags, copies, drafts, taking away. Each is stored at once, or not at all.
#include <algorithm>

#include "failover/mailbox.h"

namespace holdfast::failover {
namespace {

Folder with_next_modseq(Folder folder) {
  ++folder.modseq;
  return folder;
}

void take_out(Mailbox::View& view, const std::set<std::uint32_t>& gone) {
  std::erase_if(view.messages, [&](const StoredMessage& message) { return gone.count(message.uid) > 0; });
}

}  // namespace

Status Mailbox::update(View& view, const std::vector<std::uint32_t>& uids, const std::function<bool(StoredMessage&)>& change_one) {
  MailboxChange change;
  Folder folder = view.folder;
  ++folder.modseq;
  for (std::uint32_t uid : uids) {
    const StoredMessage* message = view.find(uid);
    if (!message) continue;
    StoredMessage changed = *message;
    if (!change_one(changed)) continue;
    changed.modseq = folder.modseq;
    change.messages.emplace_back(folder.id, std::move(changed));
  }
  if (change.messages.empty()) return {};
  change.folders.push_back(folder);
  if (Status stored = apply(change); !stored) return stored;
  view.folder.modseq = folder.modseq;
  for (auto& [id, changed] : change.messages) *view.find(changed.uid) = std::move(changed);
  return {};
}

/// Adds them to the change.
Mailbox::Copies Mailbox::copies(const View& from, const std::vector<std::uint32_t>& uids, const View& to, MailboxChange& change) {
  Copies copies;
  copies.folder = to.folder;
  for (std::uint32_t uid : uids) {
    const StoredMessage* message = from.find(uid);
    if (!message) continue;
    StoredMessage copied = *message;
    copied.uid = copies.folder.uid_next++;
    copied.modseq = ++copies.folder.modseq;
    copies.numbers.push_back(copied.uid);
    change.messages.emplace_back(copies.folder.id, copied);
    copies.messages.push_back(std::move(copied));
  }
  change.folders.push_back(copies.folder);
  return copies;
}

/// Once the change is stored.
void Mailbox::take_in(View& to, Copies&& copies) {
  to.folder = std::move(copies.folder);
  to.messages.insert(to.messages.end(), copies.messages.begin(), copies.messages.end());
}

Result<std::vector<std::uint32_t>> Mailbox::copy(const View& from, const std::vector<std::uint32_t>& uids, View& to) {
  if (Status loaded = load(to); !loaded) return loaded.error();
  MailboxChange change;
  Copies copies = this->copies(from, uids, to, change);
  std::vector<std::uint32_t> numbers = copies.numbers;
  if (numbers.empty()) return numbers;
  if (Status stored = apply(change); !stored) return stored.error();
  take_in(to, std::move(copies));
  if (own_bytes_) *own_bytes_ += numbers.size() * copy_size;
  return numbers;
}

Result<std::vector<std::uint32_t>> Mailbox::move(View& from, const std::vector<std::uint32_t>& uids, View& to) {
  if (Status loaded = load(to); !loaded) return loaded.error();
  MailboxChange change;
  Copies copies = this->copies(from, uids, to, change);
  std::vector<std::uint32_t> numbers = copies.numbers;
  if (numbers.empty()) return numbers;
  std::set<std::uint32_t> gone;
  for (std::uint32_t uid : uids)
    if (const StoredMessage* message = from.find(uid)) {
      change.removed_messages.emplace_back(from.folder.id, *message);
      gone.insert(uid);
    }
  bool is_same_folder = &from == &to;
  if (!is_same_folder) change.folders.push_back(with_next_modseq(from.folder));
  if (Status stored = apply(change); !stored) return stored.error();
  take_in(to, std::move(copies));
  if (!is_same_folder) from.folder = with_next_modseq(from.folder);
  take_out(from, gone);
  own_bytes_.reset();
  return numbers;
}

Status Mailbox::expunge(View& view, const std::vector<std::uint32_t>& uids) {
  MailboxChange change;
  std::set<std::uint32_t> gone;
  for (std::uint32_t uid : uids)
    if (const StoredMessage* message = view.find(uid)) {
      change.removed_messages.emplace_back(view.folder.id, *message);
      gone.insert(uid);
    }
  if (gone.empty()) return {};
  auto unused = unused_without(view, gone);
  if (!unused) return unused.error();
  change.removed_blobs = std::move(*unused);
  change.folders.push_back(with_next_modseq(view.folder));
  if (Status stored = apply(change); !stored) return stored;
  view.folder = with_next_modseq(view.folder);
  take_out(view, gone);
  own_bytes_.reset();
  return {};
}

/// Drafts of which no folder has a copy once these messages are gone.
Result<std::vector<std::uint64_t>> Mailbox::unused_without(const View& view, const std::set<std::uint32_t>& gone) {
  std::set<std::uint64_t> unused;
  for (const StoredMessage& message : view.messages)
    if (message.blob != 0 && gone.count(message.uid) > 0) unused.insert(message.blob);
  if (unused.empty()) return std::vector<std::uint64_t>();
  for (const ViewPtr& other : views_) {
    bool is_it = other.get() == &view;
    if (Status loaded = is_it ? Status() : load(*other); !loaded) return loaded.error();
    for (const StoredMessage& message : other->messages)
      if (!is_it || gone.count(message.uid) == 0) unused.erase(message.blob);
  }
  return std::vector<std::uint64_t>(unused.begin(), unused.end());
}

Result<std::uint32_t> Mailbox::append(View& view, const std::string& content, StoredMessage message) {
  if (Status loaded = load(view); !loaded) return loaded.error();
  if (view.folder.use == sent_use && !message.message_id.empty())
    for (const StoredMessage& other : view.messages)
      if (other.message_id == message.message_id) return other.uid;
  Folder folder = view.folder;
  message.uid = folder.uid_next++;
  message.modseq = ++folder.modseq;
  message.size = content.size();
  do {
    journal::random_bytes(&message.blob, sizeof message.blob);
  } while (message.blob == 0);
  MailboxChange change;
  change.folders.push_back(folder);
  change.blobs.emplace_back(message.blob, content);
  change.messages.emplace_back(folder.id, message);
  if (Status stored = apply(change); !stored) return stored.error();
  std::uint32_t uid = message.uid;
  view.folder = std::move(folder);
  view.messages.push_back(std::move(message));
  if (own_bytes_) *own_bytes_ += content.size();
  return uid;
}

Result<std::uint64_t> Mailbox::own_bytes() {
  if (own_bytes_) return *own_bytes_;
  std::uint64_t bytes = 0;
  std::set<std::pair<RecordId, std::uint64_t>> known;
  for (const ViewPtr& view : views_) {
    if (Status loaded = load(*view); !loaded) return loaded.error();
    for (const StoredMessage& message : view->messages) {
      bool is_copy = !known.emplace(message.entry, message.blob).second;
      bytes += is_copy ? copy_size : message.blob != 0 ? message.size : 0;
    }
  }
  own_bytes_ = bytes;
  return bytes;
}

void Mailbox::forget(const std::set<RecordId>& entries) {
  own_bytes_.reset();
  for (const ViewPtr& view : views_) {
    std::size_t gone = std::erase_if(view->messages, [&](const StoredMessage& message) { return entries.count(message.entry) > 0; });
    if (gone > 0) ++view->folder.modseq;
  }
}

Status Mailbox::content(const StoredMessage& message, const std::function<bool(std::string_view)>& sink) const {
  if (message.entry == 0) {
    constexpr std::uint64_t step = 1 << 18;
    for (std::uint64_t offset = 0; offset < message.size; offset += step) {
      auto piece = store_.blob(person_, message.blob, offset, step);
      if (!piece) return piece.error();
      if (piece->empty() || !sink(*piece)) return {};
    }
    return {};
  }
  auto entry = journal_.entry(message.entry);
  if (!entry) return entry.error();
  for (std::uint32_t index = 0;; ++index) {
    auto frame = journal_.frame(*entry, index);
    if (!frame) return frame.error();
    if (!*frame || !sink(**frame)) return {};
  }
}

Result<std::string> Mailbox::piece(const StoredMessage& message, std::uint64_t offset) const {
  if (message.entry == 0) return store_.blob(person_, message.blob, offset, 1 << 16);
  auto entry = journal_.entry(message.entry);
  if (!entry) return entry.error();
  auto frame = journal_.frame(*entry, static_cast<std::uint32_t>(offset / journal::frame_plain_size));
  if (!frame) return frame.error();
  if (!*frame) return std::string();
  return (*frame)->substr(std::min<std::size_t>((*frame)->size(), offset % journal::frame_plain_size));
}

}  // namespace holdfast::failover
