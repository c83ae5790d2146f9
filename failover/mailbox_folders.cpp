// A person's folders: making, deleting, renaming and subscribing them. Each is stored at once, or not at all.
#include <algorithm>

#include "failover/mailbox.h"

namespace holdfast::failover {
namespace {

/// Of a person; and as many names of deleted ones stay subscribed.
constexpr std::size_t most_folders = 500;

}  // namespace

std::string with_inbox_in_capitals(std::string name) {
  constexpr std::string_view in_capitals = inbox;
  bool has_length = name.size() == in_capitals.size() || (name.size() > in_capitals.size() && name[in_capitals.size()] == '/');
  bool is_inbox = has_length && std::equal(in_capitals.begin(), in_capitals.end(), name.begin(),
                                           [](char capital, char c) { return c == capital || c == capital + ('a' - 'A'); });
  return is_inbox ? name.replace(0, in_capitals.size(), in_capitals) : name;
}

/// Whether a folder can be called that now.
Status Mailbox::check_name(const std::string& name) const {
  constexpr std::size_t longest_name = 200;
  if (name.empty() || name.size() > longest_name || name.front() == '/' || name.back() == '/' || name.find("//") != std::string::npos)
    return Error{ErrorCode::invalid, "this cannot be a folder's name"};
  if (find(name)) return Error{ErrorCode::invalid, "there is such a folder already"};
  return {};
}

/// Folders above this one that are not there, the highest first.
std::vector<std::string> Mailbox::missing_above(const std::string& name) const {
  std::vector<std::string> missing;
  for (std::size_t slash = name.find('/'); slash != std::string::npos; slash = name.find('/', slash + 1))
    if (std::string above = name.substr(0, slash); !find(above)) missing.push_back(with_inbox_in_capitals(std::move(above)));
  return missing;
}

/// Adds them to the change.
Result<std::vector<Mailbox::ViewPtr>> Mailbox::new_folders(const std::vector<std::string>& names, MailboxChange& change) {
  if (views_.size() + names.size() > most_folders) return Error{ErrorCode::invalid, "there are too many folders"};
  std::uint32_t last = 0;
  for (const ViewPtr& other : views_) last = std::max(last, other->folder.id);
  for (const Folder& other : gone_) last = std::max(last, other.id);
  std::vector<ViewPtr> views;
  for (const std::string& name : names) {
    auto validity = store_.new_uid_validity(person_);
    if (!validity) return validity.error();
    auto view = std::make_shared<View>();
    view->folder.id = ++last;
    view->folder.name = with_inbox_in_capitals(name);
    view->folder.uid_validity = *validity;
    change.folders.push_back(view->folder);
    views.push_back(std::move(view));
  }
  return views;
}

/// Stores new folders and new names of folders.
Status Mailbox::store_folders(MailboxChange&& change, const std::vector<ViewPtr>& added) {
  auto is_back = [&](const Folder& gone) {
    return std::any_of(change.folders.begin(), change.folders.end(), [&](const Folder& folder) { return folder.name == gone.name; });
  };
  for (const Folder& gone : gone_)
    if (is_back(gone)) change.removed_folders.push_back(gone.id);
  if (Status stored = apply(change); !stored) return stored;
  std::erase_if(gone_, is_back);
  views_.insert(views_.end(), added.begin(), added.end());
  return {};
}

Status Mailbox::create(const std::string& name) {
  if (Status fine = check_name(name); !fine) return fine;
  std::vector<std::string> names = missing_above(name);
  names.push_back(name);
  MailboxChange change;
  auto added = new_folders(names, change);
  if (!added) return added.error();
  return store_folders(std::move(change), *added);
}

Status Mailbox::remove(const std::string& name) {
  ViewPtr view = find(name);
  if (!view) return Error{ErrorCode::not_found, "there is no such folder"};
  if (view->folder.name == inbox || !view->folder.use.empty()) return Error{ErrorCode::invalid, "this folder is needed and stays"};
  if (Status loaded = load(*view); !loaded) return loaded;
  MailboxChange change;
  change.removed_folders.push_back(view->folder.id);
  std::set<std::uint32_t> gone;
  for (const StoredMessage& message : view->messages) {
    change.removed_messages.emplace_back(view->folder.id, message);
    gone.insert(message.uid);
  }
  auto unused = unused_without(*view, gone);
  if (!unused) return unused.error();
  change.removed_blobs = std::move(*unused);
  bool stays_subscribed = view->folder.is_subscribed && gone_.size() < most_folders;
  if (stays_subscribed) {
    Folder& lost = change.folders.emplace_back();
    lost.id = view->folder.id;
    lost.name = view->folder.name;
    lost.is_gone = true;
  }
  if (Status stored = apply(change); !stored) return stored;
  if (stays_subscribed) gone_.push_back(change.folders.back());
  view->is_gone = true;
  view->messages.clear();
  std::erase(views_, view);
  own_bytes_.reset();
  return {};
}

Status Mailbox::rename(const std::string& from, const std::string& to) {
  ViewPtr view = find(from);
  if (!view) return Error{ErrorCode::not_found, "there is no such folder"};
  if (view->folder.name == inbox || !view->folder.use.empty()) return Error{ErrorCode::invalid, "this folder keeps its name"};
  const std::string old_name = view->folder.name;
  MailboxChange change;
  std::vector<std::pair<ViewPtr, std::string>> renamed;
  for (const ViewPtr& one : views_) {
    bool is_below = one->folder.name.starts_with(old_name + "/");
    if (one != view && !is_below) continue;
    Folder folder = one->folder;
    folder.name = with_inbox_in_capitals(to + folder.name.substr(old_name.size()));
    if (Status fine = check_name(folder.name); !fine) return fine;
    renamed.emplace_back(one, folder.name);
    change.folders.push_back(std::move(folder));
  }
  auto added = new_folders(missing_above(to), change);
  if (!added) return added.error();
  if (Status stored = store_folders(std::move(change), *added); !stored) return stored;
  for (auto& [one, name] : renamed) one->folder.name = name;
  return {};
}

/// Of a name without a folder. Programs forget one so after they have renamed it.
Status Mailbox::forget_gone(const std::string& name) {
  MailboxChange change;
  for (const Folder& gone : gone_)
    if (gone.name == name) change.removed_folders.push_back(gone.id);
  if (change.removed_folders.empty()) return {};
  if (Status stored = apply(change); !stored) return stored;
  std::erase_if(gone_, [&](const Folder& gone) { return gone.name == name; });
  return {};
}

Status Mailbox::subscribe(const std::string& name, bool is_subscribed) {
  ViewPtr view = find(name);
  if (!view && !is_subscribed) return forget_gone(name);
  bool is_subscribed_still = !view && std::any_of(gone_.begin(), gone_.end(), [&](const Folder& gone) { return gone.name == name; });
  if (is_subscribed_still) return {};
  if (!view) return Error{ErrorCode::not_found, "there is no such folder"};
  Folder folder = view->folder;
  folder.is_subscribed = is_subscribed;
  MailboxChange change;
  change.folders.push_back(folder);
  if (Status stored = apply(change); !stored) return stored;
  view->folder.is_subscribed = is_subscribed;
  return {};
}

}  // namespace holdfast::failover
