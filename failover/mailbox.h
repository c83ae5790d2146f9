// A person's mailbox: folders that are views on the journal, and what the person does there.
//
// INBOX shows what the journal holds for the person's addresses (forwarded, delivered and held; also what was
// under way when Holdfast stopped, once; not what the primary refused), Sent what went out from them; other
// folders hold what is put there. Nothing is copied for that: a message of the journal gets a number (UID) when
// it is first seen, for good, and its flags; its content stays where it is.
//
// Belongs to one thread; sessions of the same person share one object.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "failover/directory.h"
#include "failover/mailbox_store.h"
#include "journal/journal.h"

namespace holdfast::failover {

inline constexpr const char* inbox = "INBOX";
/// The name of a folder, or a pattern for such, with INBOX as it is written here: "inbox" and "Inbox/a" mean it too.
std::string with_inbox_in_capitals(std::string name);
/// The session's name of entries that bring what a person has sent to its primary mailbox: not shown here, it
/// is in Sent.
inline constexpr std::string_view return_session = "return";
inline constexpr const char* sent_use = "\\Sent";

/// Whether nobody knows what became of it for the recipient: Holdfast was killed before the primary's answer was on record. The primary
/// may have it and its sender know that, or the sender comes again with it.
bool was_under_way(const journal::Recipient& recipient);

class Mailbox {
 public:
  Mailbox(MailboxStore& store, journal::Journal& journal, const Directory& directory, std::string person)
      : store_(store), journal_(journal), directory_(directory), person_(std::move(person)) {}
  /// Loads the folders; makes INBOX, Sent, Drafts, Trash and Junk when they are not there.
  Status open();

  struct View {
    Folder folder;
    std::vector<StoredMessage> messages;  ///< ascending by uid
    bool is_loaded = false;
    bool is_gone = false;  ///< the folder was removed

    const StoredMessage* find(std::uint32_t uid) const;
    StoredMessage* find(std::uint32_t uid);
  };
  using ViewPtr = std::shared_ptr<View>;

  const std::string& person() const { return person_; }
  bool is_own(std::string_view address) const;

  /// Looks what has come into the journal since the last time. Cheap when nothing has.
  Status refresh();
  /// Folders by name, without messages; INBOX first.
  std::vector<ViewPtr> folders() const;
  /// Names that are subscribed and whose folders were deleted.
  std::vector<std::string> lost_subscriptions() const;
  /// With its messages; nothing when there is no such folder.
  Result<ViewPtr> view(const std::string& name);

  // Errors: invalid, with a sentence for the person.
  /// With the folders above it that are not there (RFC 3501 6.3.3).
  Status create(const std::string& name);
  Status remove(const std::string& name);
  Status rename(const std::string& from, const std::string& to);
  Status subscribe(const std::string& name, bool is_subscribed);

  /// Changes messages, each as change says; returns false from change to leave one as it is.
  Status update(View& view, const std::vector<std::uint32_t>& uids, const std::function<bool(StoredMessage&)>& change);
  /// Returns the numbers in the other folder, in the order of the uids.
  Result<std::vector<std::uint32_t>> copy(const View& from, const std::vector<std::uint32_t>& uids, View& to);
  /// The same, and takes them away where they were: at once (RFC 6851 3.3).
  Result<std::vector<std::uint32_t>> move(View& from, const std::vector<std::uint32_t>& uids, View& to);
  /// Hides messages from the folder. What is in the journal stays there.
  Status expunge(View& view, const std::vector<std::uint32_t>& uids);
  /// Puts a message there. Into Sent, what the journal has as sent already is not put twice: its number is
  /// returned.
  Result<std::uint32_t> append(View& view, const std::string& content, StoredMessage message);

  /// Bytes that the person's own doing takes: messages that were put there, and copies of any.
  Result<std::uint64_t> own_bytes();
  /// What a copy takes, about.
  static constexpr std::uint64_t copy_size = 1024;

  /// Entries that were erased go from all folders. The store must be told too.
  void forget(const std::set<RecordId>& entries);
  /// The account is taken away: nothing is stored any more.
  void close() { is_closed_ = true; }

  /// Hands a message's content to sink piece by piece, until it returns false.
  Status content(const StoredMessage& message, const std::function<bool(std::string_view)>& sink) const;
  /// A piece of a message's content (64 KiB or less) from an offset on; nothing at its end.
  Result<std::string> piece(const StoredMessage& message, std::uint64_t offset) const;

 private:
  Status apply(const MailboxChange& change);
  Status load(View& view);
  Result<std::set<RecordId>> candidates(Folder& folder, journal::Term term, RecordId indexed) const;
  Status look_through(View& view, journal::Term term, RecordId indexed);
  ViewPtr find(const std::string& name) const;
  enum class Standing { not_taken, open, perhaps_taken, taken };  // what counts more is behind what counts less
  Standing standing(const journal::Entry& entry, journal::Term term) const;
  bool is_second_copy(const journal::Entry& entry, Standing standing, RecordId other) const;
  /// Messages of one folder on their way into another.
  struct Copies {
    std::vector<std::uint32_t> numbers;
    Folder folder;  ///< as it will be
    std::vector<StoredMessage> messages;
  };
  static Copies copies(const View& from, const std::vector<std::uint32_t>& uids, const View& to, MailboxChange& change);
  static void take_in(View& to, Copies&& copies);
  Result<std::vector<std::uint64_t>> unused_without(const View& view, const std::set<std::uint32_t>& gone);
  Status check_name(const std::string& name) const;
  std::vector<std::string> missing_above(const std::string& name) const;
  Result<std::vector<ViewPtr>> new_folders(const std::vector<std::string>& names, MailboxChange& change);
  Status store_folders(MailboxChange&& change, const std::vector<ViewPtr>& added);
  Status forget_gone(const std::string& name);

  MailboxStore& store_;
  journal::Journal& journal_;
  const Directory& directory_;
  const std::string person_;
  std::vector<ViewPtr> views_;
  std::vector<Folder> gone_;   ///< of which the name is subscribed
  std::set<std::string> own_;  ///< addresses, as of the last refresh
  std::uint64_t directory_version_ = 0;
  RecordId indexed_ = 0;
  std::optional<std::uint64_t> own_bytes_;  ///< as far as it is known
  bool is_closed_ = false;
};

}  // namespace holdfast::failover
