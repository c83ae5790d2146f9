// What people have in their mailboxes that is not in the log: accounts, folders, which message has which
// number and flags, drafts. One LMDB environment beside the log; keys are keyed hashes of addresses, values
// are sealed.
//
// A message of the journal is only referred to; one that a person put there (a draft) is stored here, in
// pieces. Thread-safe; each change is one synced commit.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "journal/crypto.h"
#include "journal/lmdb.h"
#include "journal/record.h"

namespace holdfast::failover {

using journal::RecordId;

/// Who may log in.
struct Account {
  std::string address;
  std::string password_hash;  ///< as libsodium's crypto_pwhash_str() writes it; empty: none can be right
  bool is_enabled = true;
  std::int64_t changed_us = 0;
};

enum Flag : std::uint8_t { seen = 1, answered = 2, flagged = 4, deleted = 8, draft = 16 };

/// A message in a folder. It is in the journal (entry) or in the store (blob).
struct StoredMessage {
  std::uint32_t uid = 0;
  RecordId entry = 0;
  std::uint64_t blob = 0;
  std::uint8_t flags = 0;
  std::set<std::string> keywords;
  std::uint64_t modseq = 1;
  std::int64_t date_us = 0;
  std::uint64_t size = 0;
  std::string message_id;
};

struct Folder {
  std::uint32_t id = 0;
  std::string name;  ///< UTF-8, levels separated by '/'
  std::string use;   ///< "\Sent" and the like (RFC 6154), or nothing
  std::uint32_t uid_validity = 0, uid_next = 1;
  std::uint64_t modseq = 1;  ///< the highest of its messages
  bool is_subscribed = true;
  bool is_gone = false;  ///< it was deleted; its name stays subscribed until the person says otherwise (RFC 3501 6.3.6)
  // Of the folders that show the journal: how far it has been looked through for each of the person's
  // addresses, and entries before that whose outcome was still open.
  std::map<std::string, RecordId> looked_through;
  std::set<RecordId> waiting;
};

/// What changes at once.
struct MailboxChange {
  std::vector<Folder> folders;                                    ///< added or replaced
  std::vector<std::uint32_t> removed_folders;                     ///< with all that is in them
  std::vector<std::pair<std::uint32_t, StoredMessage>> messages;  ///< by folder; added or replaced
  std::vector<std::pair<std::uint32_t, StoredMessage>> removed_messages;
  std::vector<std::pair<std::uint64_t, std::string>> blobs;  ///< added
  std::vector<std::uint64_t> removed_blobs;
};

class MailboxStore {
 public:
  static std::string path_in(const std::string& journal) { return journal + "/mailboxes.lmdb"; }
  /// base is the key ring's base key.
  static Result<std::unique_ptr<MailboxStore>> open(const std::string& journal, const journal::Key& base, journal::Environment::Mode mode);

  Result<std::vector<Account>> accounts() const;
  Result<std::uint64_t> count_accounts() const;
  Result<std::optional<Account>> account(std::string_view address) const;
  Status put(const Account& account);
  /// Takes an account away with its folders, flags and drafts. What the journal holds stays.
  Status remove(std::string_view address);

  // person is an account's address.
  Result<std::vector<Folder>> folders(std::string_view person) const;
  /// Ascending by uid.
  Result<std::vector<StoredMessage>> messages(std::string_view person, std::uint32_t folder) const;
  /// At most so many bytes of it, from an offset on.
  Result<std::string> blob(std::string_view person, std::uint64_t id, std::uint64_t offset, std::uint64_t most) const;
  Status apply(std::string_view person, const MailboxChange& change);
  /// A UIDVALIDITY that no folder of the person ever had.
  Result<std::uint32_t> new_uid_validity(std::string_view person);
  /// Entries were erased: they go from every folder of everybody.
  Status forget(const std::vector<RecordId>& entries);

  /// Grows with each change of whatever is stored.
  std::uint64_t changes() const { return environment_.commits(); }

  /// Whether a folder has an entry after this one.
  Result<bool> is_ahead_of(RecordId last) const;
  /// The journal is a backup that was put back, and ended with this record when it was opened: what is of later ones goes, and
  /// every folder gets a new UIDVALIDITY, so that no number that a mail program has seen means another message.
  Status start_again_after(RecordId last);

 private:
  MailboxStore(journal::Environment environment, const journal::Key& base);
  std::string key(char kind, std::string_view person) const;
  Status put_sealed(journal::Transaction& transaction, const std::string& key, std::string_view plain);
  Result<std::string> open_value(std::string_view key, std::string_view value) const;
  /// Keys and opened values that begin so, in order.
  Status each(const std::string& prefix, const std::function<Status(std::string_view key, const std::string& value)>& visit) const;
  Status erase_all(journal::Transaction& transaction, const std::string& prefix);
  Result<std::uint32_t> next_uid_validity(journal::Transaction& transaction, std::string_view who);
  Status forget_entries(journal::Transaction& transaction, RecordId first, RecordId last);

  journal::Environment environment_;
  mutable std::mutex hashing_;
  mutable journal::KeyedHash hash_;
  const journal::Key key_;
};

}  // namespace holdfast::failover
