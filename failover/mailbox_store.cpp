#include "failover/mailbox_store.h"

#include <algorithm>

#include "journal/bytes.h"
#include "journal/canonical_address.h"

namespace holdfast::failover {
namespace {

using journal::Cursor;
using journal::Environment;
using journal::Transaction;

constexpr std::uint64_t map_size = 1ULL << 36;  // sparse
constexpr std::size_t hash_size = 16;
/// What is left of an LMDB page beside the seal.
constexpr std::size_t piece_size = 4080 - journal::seal_overhead;

constexpr char account_kind = 'a', blob_kind = 'b', entry_kind = 'e', folder_kind = 'f', message_kind = 'm', validity_kind = 'v';

std::string be32(std::uint32_t value) { return big_endian(value).substr(4); }
std::uint32_t from_be32(std::string_view bytes) {
  return static_cast<std::uint32_t>(from_big_endian((std::string(4, '\0') + std::string(bytes.substr(0, 4))).data()));
}

std::string encode(const Account& account) {
  ByteWriter out;
  out.string(account.address);
  out.string(account.password_hash);
  out.integer(static_cast<std::uint8_t>(account.is_enabled));
  out.integer(account.changed_us);
  return out.take();
}

std::optional<Account> decode_account(std::string_view bytes) {
  ByteReader in(bytes);
  Account account;
  account.address = in.string();
  account.password_hash = in.string();
  account.is_enabled = in.integer<std::uint8_t>() != 0;
  account.changed_us = in.integer<std::int64_t>();
  return in.ok() ? std::optional(account) : std::nullopt;
}

/// Of a folder.
enum class Subscription : std::uint8_t { no, yes, without_folder };

Subscription subscription(const Folder& folder) {
  return folder.is_gone ? Subscription::without_folder : folder.is_subscribed ? Subscription::yes : Subscription::no;
}

std::string encode(const Folder& folder) {
  ByteWriter out;
  out.integer(folder.id);
  out.string(folder.name);
  out.string(folder.use);
  out.integer(folder.uid_validity);
  out.integer(folder.uid_next);
  out.integer(folder.modseq);
  out.integer(static_cast<std::uint8_t>(subscription(folder)));
  out.integer(static_cast<std::uint32_t>(folder.looked_through.size()));
  for (const auto& [address, id] : folder.looked_through) {
    out.string(address);
    out.integer(id);
  }
  out.integer(static_cast<std::uint32_t>(folder.waiting.size()));
  for (RecordId id : folder.waiting) out.integer(id);
  return out.take();
}

std::optional<Folder> decode_folder(std::string_view bytes) {
  ByteReader in(bytes);
  Folder folder;
  folder.id = in.integer<std::uint32_t>();
  folder.name = in.string();
  folder.use = in.string();
  folder.uid_validity = in.integer<std::uint32_t>();
  folder.uid_next = in.integer<std::uint32_t>();
  folder.modseq = in.integer<std::uint64_t>();
  auto subscription = static_cast<Subscription>(in.integer<std::uint8_t>());
  folder.is_subscribed = subscription != Subscription::no;
  folder.is_gone = subscription == Subscription::without_folder;
  for (auto count = in.integer<std::uint32_t>(); count > 0 && in.ok(); --count) {
    std::string address(in.string());
    folder.looked_through[address] = in.integer<RecordId>();
  }
  for (auto count = in.integer<std::uint32_t>(); count > 0 && in.ok(); --count) folder.waiting.insert(in.integer<RecordId>());
  return in.ok() ? std::optional(folder) : std::nullopt;
}

std::string encode(const StoredMessage& message) {
  ByteWriter out;
  out.integer(message.entry);
  out.integer(message.blob);
  out.integer(message.flags);
  out.integer(static_cast<std::uint32_t>(message.keywords.size()));
  for (const std::string& keyword : message.keywords) out.string(keyword);
  out.integer(message.modseq);
  out.integer(message.date_us);
  out.integer(message.size);
  out.string(message.message_id);
  return out.take();
}

std::optional<StoredMessage> decode_message(std::string_view bytes) {
  ByteReader in(bytes);
  StoredMessage message;
  message.entry = in.integer<RecordId>();
  message.blob = in.integer<std::uint64_t>();
  message.flags = in.integer<std::uint8_t>();
  for (auto count = in.integer<std::uint32_t>(); count > 0 && in.ok(); --count) message.keywords.emplace(in.string());
  message.modseq = in.integer<std::uint64_t>();
  message.date_us = in.integer<std::int64_t>();
  message.size = in.integer<std::uint64_t>();
  message.message_id = in.string();
  return in.ok() ? std::optional(message) : std::nullopt;
}

Error damaged(const Environment& environment) {
  return {ErrorCode::corrupt, environment.path() + ": a value is damaged; restore the file from your backup"};
}

}  // namespace

MailboxStore::MailboxStore(Environment environment, const journal::Key& base)
    : environment_(std::move(environment)),
      hash_(journal::derive_key(base, "holdfast mailbox names")),
      key_(journal::derive_key(base, "holdfast mailbox values")) {}

Result<std::unique_ptr<MailboxStore>> MailboxStore::open(const std::string& journal, const journal::Key& base, Environment::Mode mode) {
  auto environment = Environment::open(path_in(journal), mode, mode == Environment::Mode::write ? map_size : 0);
  if (!environment) return environment.error();
  if (Status whole = environment->fill_up(); !whole) return whole.error();
  return std::unique_ptr<MailboxStore>(new MailboxStore(std::move(*environment), base));
}

std::string MailboxStore::key(char kind, std::string_view person) const {
  std::lock_guard lock(hashing_);
  journal::Hash hash = hash_(journal::canonical_address(person));
  return kind + std::string(journal::view(hash).substr(0, hash_size));
}

/// A value is bound to its key, so that none can be put in another's place.
Status MailboxStore::put_sealed(Transaction& transaction, const std::string& key, std::string_view plain) {
  std::string sealed;
  journal::seal(key_, plain, key, sealed);
  return transaction.put(key, sealed);
}

Result<std::string> MailboxStore::open_value(std::string_view key, std::string_view value) const {
  auto plain = journal::open_sealed(key_, value, key);
  if (!plain) return damaged(environment_);
  return std::move(*plain);
}

Status MailboxStore::each(const std::string& prefix, const std::function<Status(std::string_view, const std::string&)>& visit) const {
  auto transaction = Transaction::begin(environment_, Environment::Mode::read);
  if (!transaction) return transaction.error();
  auto cursor = Cursor::open(*transaction);
  if (!cursor) return cursor.error();
  for (auto item = cursor->at_or_after(prefix);; item = cursor->next()) {
    if (!item) return item.error();
    if (!*item || !(*item)->key.starts_with(prefix)) return {};
    auto plain = open_value((*item)->key, (*item)->value);
    if (!plain) return plain.error();
    if (Status visited = visit((*item)->key, *plain); !visited) return visited;
  }
}

Result<std::vector<Account>> MailboxStore::accounts() const {
  std::vector<Account> all;
  Status read = each(std::string(1, account_kind), [&](std::string_view, const std::string& value) -> Status {
    auto account = decode_account(value);
    if (!account) return damaged(environment_);
    all.push_back(std::move(*account));
    return {};
  });
  if (!read) return read.error();
  std::sort(all.begin(), all.end(), [](const Account& a, const Account& b) { return a.address < b.address; });
  return all;
}

Result<std::uint64_t> MailboxStore::count_accounts() const {
  auto transaction = Transaction::begin(environment_, Environment::Mode::read);
  if (!transaction) return transaction.error();
  auto cursor = Cursor::open(*transaction);
  if (!cursor) return cursor.error();
  std::uint64_t count = 0;
  for (auto item = cursor->at_or_after(std::string(1, account_kind));; item = cursor->next()) {
    if (!item) return item.error();
    if (!*item || (*item)->key.front() != account_kind) return count;
    ++count;
  }
}

Result<std::optional<Account>> MailboxStore::account(std::string_view address) const {
  auto transaction = Transaction::begin(environment_, Environment::Mode::read);
  if (!transaction) return transaction.error();
  std::string name = key(account_kind, address);
  auto value = transaction->get(name);
  if (!value) return value.error();
  if (!*value) return std::optional<Account>();
  auto plain = open_value(name, **value);
  if (!plain) return plain.error();
  auto account = decode_account(*plain);
  if (!account) return damaged(environment_);
  return account;
}

Status MailboxStore::put(const Account& account) {
  auto transaction = Transaction::begin(environment_, Environment::Mode::write);
  if (!transaction) return transaction.error();
  if (Status stored = put_sealed(*transaction, key(account_kind, account.address), encode(account)); !stored) return stored;
  return transaction->commit();
}

Status MailboxStore::remove(std::string_view address) {
  auto transaction = Transaction::begin(environment_, Environment::Mode::write);
  if (!transaction) return transaction.error();
  const std::string messages = key(message_kind, address);
  // Which entries its folders refer to is told by its messages.
  std::vector<std::string> references;
  {
    auto cursor = Cursor::open(*transaction);
    if (!cursor) return cursor.error();
    for (auto item = cursor->at_or_after(messages);; item = cursor->next()) {
      if (!item) return item.error();
      if (!*item || !(*item)->key.starts_with(messages)) break;
      auto plain = open_value((*item)->key, (*item)->value);
      if (!plain) return plain.error();
      auto message = decode_message(*plain);
      if (message && message->entry != 0) references.push_back(entry_kind + big_endian(message->entry) + std::string((*item)->key.substr(1)));
    }
  }
  for (const std::string& one : references)
    if (Status erased = transaction->erase(one); !erased) return erased;
  for (char kind : {account_kind, folder_kind, message_kind, blob_kind})
    if (Status erased = erase_all(*transaction, key(kind, address)); !erased) return erased;
  return transaction->commit();
}

Result<std::vector<Folder>> MailboxStore::folders(std::string_view person) const {
  std::vector<Folder> all;
  Status read = each(key(folder_kind, person), [&](std::string_view, const std::string& value) -> Status {
    auto folder = decode_folder(value);
    if (!folder) return damaged(environment_);
    all.push_back(std::move(*folder));
    return {};
  });
  if (!read) return read.error();
  return all;
}

Result<std::vector<StoredMessage>> MailboxStore::messages(std::string_view person, std::uint32_t folder) const {
  std::vector<StoredMessage> all;
  std::string prefix = key(message_kind, person) + be32(folder);
  Status read = each(prefix, [&](std::string_view name, const std::string& value) -> Status {
    auto message = decode_message(value);
    if (!message || name.size() != prefix.size() + 4) return damaged(environment_);
    message->uid = from_be32(name.substr(prefix.size()));
    all.push_back(std::move(*message));
    return {};
  });
  if (!read) return read.error();
  return all;
}

Result<std::string> MailboxStore::blob(std::string_view person, std::uint64_t id, std::uint64_t offset, std::uint64_t most) const {
  auto transaction = Transaction::begin(environment_, Environment::Mode::read);
  if (!transaction) return transaction.error();
  std::string content;
  const std::string prefix = key(blob_kind, person) + big_endian(id);
  const auto first = static_cast<std::uint32_t>(offset / piece_size);
  const std::uint64_t skipped = offset % piece_size;
  for (std::uint32_t index = first; content.size() < skipped + most; ++index) {
    std::string name = prefix + be32(index);
    auto value = transaction->get(name);
    if (!value) return value.error();
    if (!*value) break;
    auto plain = open_value(name, **value);
    if (!plain) return plain.error();
    content += *plain;
  }
  return content.substr(std::min<std::uint64_t>(skipped, content.size()), most);
}

Status MailboxStore::erase_all(Transaction& transaction, const std::string& prefix) {
  std::vector<std::string> keys;
  {
    auto cursor = Cursor::open(transaction);
    if (!cursor) return cursor.error();
    for (auto item = cursor->at_or_after(prefix);; item = cursor->next()) {
      if (!item) return item.error();
      if (!*item || !(*item)->key.starts_with(prefix)) break;
      keys.emplace_back((*item)->key);
    }
  }
  for (const std::string& one : keys)
    if (Status erased = transaction.erase(one); !erased) return erased;
  return {};
}

Status MailboxStore::apply(std::string_view person, const MailboxChange& change) {
  auto transaction = Transaction::begin(environment_, Environment::Mode::write);
  if (!transaction) return transaction.error();
  const std::string folder_key = key(folder_kind, person), message_key = key(message_kind, person), blob_key = key(blob_kind, person);
  const std::string who = message_key.substr(1);
  Status done;
  auto step = [&](Status next) {
    if (done) done = std::move(next);
  };
  auto place = [&](std::uint32_t folder, const StoredMessage& message) { return who + be32(folder) + be32(message.uid); };
  for (std::uint32_t id : change.removed_folders) {
    step(transaction->erase(folder_key + be32(id)));
    step(erase_all(*transaction, message_key + be32(id)));
  }
  for (const Folder& folder : change.folders) step(put_sealed(*transaction, folder_key + be32(folder.id), encode(folder)));
  for (const auto& [folder, message] : change.removed_messages) {
    step(transaction->erase(message_kind + place(folder, message)));
    if (message.entry != 0) step(transaction->erase(entry_kind + big_endian(message.entry) + place(folder, message)));
  }
  for (const auto& [folder, message] : change.messages) {
    step(put_sealed(*transaction, message_kind + place(folder, message), encode(message)));
    if (message.entry != 0) step(transaction->put(entry_kind + big_endian(message.entry) + place(folder, message), {}));
  }
  for (const auto& [id, content] : change.blobs) {
    std::uint32_t index = 0;
    for (std::string_view left = content; !left.empty(); left.remove_prefix(std::min(left.size(), piece_size)))
      step(put_sealed(*transaction, blob_key + big_endian(id) + be32(index++), left.substr(0, piece_size)));
  }
  for (std::uint64_t id : change.removed_blobs) step(erase_all(*transaction, blob_key + big_endian(id)));
  if (!done) return done;
  return transaction->commit();
}

/// who is a person's hash.
Result<std::uint32_t> MailboxStore::next_uid_validity(Transaction& transaction, std::string_view who) {
  const std::string name = validity_kind + std::string(who);
  auto last = transaction.get(name);
  if (!last) return last.error();
  auto now = static_cast<std::uint32_t>(journal::now_us() / 1000000);
  std::uint32_t next = std::max(now, *last && (*last)->size() == 4 ? from_be32(**last) + 1 : 0);
  if (Status stored = transaction.put(name, be32(next)); !stored) return stored.error();
  return next;
}

Result<std::uint32_t> MailboxStore::new_uid_validity(std::string_view person) {
  auto transaction = Transaction::begin(environment_, Environment::Mode::write);
  if (!transaction) return transaction.error();
  auto next = next_uid_validity(*transaction, key(validity_kind, person).substr(1));
  if (!next) return next.error();
  if (Status committed = transaction->commit(); !committed) return committed.error();
  return *next;
}

/// Takes the entries from first to last out of all folders.
Status MailboxStore::forget_entries(Transaction& transaction, RecordId first, RecordId last) {
  std::vector<std::string> keys;
  {
    auto cursor = Cursor::open(transaction);
    if (!cursor) return cursor.error();
    for (auto item = cursor->at_or_after(entry_kind + big_endian(first));; item = cursor->next()) {
      if (!item) return item.error();
      bool is_meant = *item && (*item)->key.front() == entry_kind && from_big_endian((*item)->key.data() + 1) <= last;
      if (!is_meant) break;
      keys.emplace_back((*item)->key);
    }
  }
  constexpr std::size_t before_place = 1 + sizeof(RecordId);
  for (const std::string& one : keys) {
    if (Status erased = transaction.erase(message_kind + one.substr(before_place)); !erased) return erased;
    if (Status erased = transaction.erase(one); !erased) return erased;
  }
  return {};
}

Status MailboxStore::forget(const std::vector<RecordId>& entries) {
  auto transaction = Transaction::begin(environment_, Environment::Mode::write);
  if (!transaction) return transaction.error();
  for (RecordId id : entries)
    if (Status forgotten = forget_entries(*transaction, id, id); !forgotten) return forgotten;
  return transaction->commit();
}

Result<bool> MailboxStore::is_ahead_of(RecordId last) const {
  auto transaction = Transaction::begin(environment_, Environment::Mode::read);
  if (!transaction) return transaction.error();
  auto cursor = Cursor::open(*transaction);
  if (!cursor) return cursor.error();
  auto item = cursor->at_or_after(entry_kind + big_endian(last + 1));
  if (!item) return item.error();
  return *item && (*item)->key.front() == entry_kind;
}

Status MailboxStore::start_again_after(RecordId last) {
  std::vector<std::pair<std::string, Folder>> folders;
  Status read = each(std::string(1, folder_kind), [&](std::string_view name, const std::string& value) -> Status {
    auto folder = decode_folder(value);
    if (!folder) return damaged(environment_);
    folders.emplace_back(name, std::move(*folder));
    return {};
  });
  if (!read) return read;
  auto transaction = Transaction::begin(environment_, Environment::Mode::write);
  if (!transaction) return transaction.error();
  if (Status forgotten = forget_entries(*transaction, last + 1, ~RecordId(0)); !forgotten) return forgotten;
  for (auto& [name, folder] : folders) {
    auto validity = next_uid_validity(*transaction, std::string_view(name).substr(1, hash_size));
    if (!validity) return validity.error();
    folder.uid_validity = *validity;
    for (auto& [address, id] : folder.looked_through) id = std::min(id, last);
    folder.waiting.erase(folder.waiting.upper_bound(last), folder.waiting.end());
    if (Status stored = put_sealed(*transaction, name, encode(folder)); !stored) return stored;
  }
  return transaction->commit();
}

}  // namespace holdfast::failover
