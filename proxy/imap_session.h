// An IMAP session: one mail program's connection to a person's emergency mailbox (RFC 3501).
//
// All sessions of all people live on one loop of their own, so that reading never keeps the relay's loops
// from mail, and mailboxes need no locks. A long search or fetch lets others have their turn now and then.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "failover/accounts.h"
#include "failover/mailbox.h"
#include "failover/sending_pace.h"
#include "proxy/imap_command.h"
#include "proxy/imap_format.h"
#include "proxy/imap_search.h"
#include "proxy/imap_sort.h"
#include "proxy/login_line.h"
#include "proxy/mailbox_gate.h"
#include "proxy/password_checker.h"
#include "proxy/worker.h"

namespace holdfast::proxy {

class ImapSession;
class SubmissionSession;

/// Sets or takes away a flag by its name; false when there is none such.
bool set_flag(failover::StoredMessage& message, const std::string& name, bool is_set);

/// What all IMAP sessions share. Belongs to their loop, but for what says otherwise.
struct MailboxService {
  MailboxService(failover::MailboxStore& the_store, journal::Journal& the_journal, Control& control)
      : store(the_store), journal(the_journal), directory(control.directory()), gate(control) {}

  /// The person's mailbox, shared by its sessions.
  Result<std::shared_ptr<failover::Mailbox>> mailbox(const std::string& person);
  /// Entries were erased: they vanish from all mailboxes, also those that are open.
  Status forget(const std::vector<journal::RecordId>& entries);
  /// The account is another now: whoever is logged in must do so again.
  void shut_out(const std::string& person);
  /// Takes an account away, with all that the person put there.
  Status remove(const std::string& person);
  /// Holdfast is shutting down.
  void stop();
  /// Wakes all sessions where there may be news, or an end: at rest, thousands that wait cost nothing. To be called a few times a second.
  void look(const std::shared_ptr<const Settings>& settings, Deadline now);

  failover::MailboxStore& store;
  journal::Journal& journal;
  const failover::Directory& directory;
  MailboxGate gate;
  PasswordChecker passwords;
  failover::LoginThrottle throttle;
  LoginLine line;
  failover::SendingPace pace;
  /// Passwords that were right a while ago, as keyed hashes under a key of this process: a webmail logs in for every click, and
  /// argon2 is slow on purpose.
  struct Remembered {
    journal::Hash digest;
    Deadline until;
  };
  std::map<std::string, Remembered> remembered;
  journal::KeyedHash remembering{journal::random_key()};
  std::map<std::string, std::weak_ptr<failover::Mailbox>> mailboxes;
  std::set<ImapSession*> sessions;
  std::set<SubmissionSession*> submissions;
  std::uint64_t in_memory = 0;  ///< bytes of large commands (APPEND) that are coming in, of all sessions
  std::uint64_t in_memory_of(const std::string& person) const;

 private:
  /// How far mail and mailboxes were at the last look.
  struct Seen {
    journal::RecordId written = 0, indexed = 0;
    std::uint64_t stored = 0;
    bool operator==(const Seen&) const = default;
  } seen_;
};

class ImapSession {
 public:
  ImapSession(Worker& worker, MailboxService& service, const ListenerConfig& listener, FileDescriptor socket, const SocketAddress& peer,
              std::unique_ptr<ConnectionCounts::Place> place);
  ~ImapSession();
  ImapSession(const ImapSession&) = delete;
  ImapSession& operator=(const ImapSession&) = delete;

  static Task<void> run(std::unique_ptr<ImapSession> session);
  /// Says farewell and ends, soon.
  void stop(const std::string& why);
  const std::string& person() const { return person_; }
  /// Bytes of MailboxService::in_memory that are this session's.
  std::uint64_t reserved() const { return reserved_; }
  /// Looks whether the person may still be logged in, and for news while idle.
  void look() { wakeup_.fire(); }

 private:
  enum class State { not_authenticated, authenticated, selected, logout };
  /// How long a client may be silent (RFC 3501 5.4). Strangers get little memory and time.
  static constexpr auto longest_silence = std::chrono::minutes(30), longest_early_silence = std::chrono::minutes(1);
  static constexpr std::size_t longest_early_line = 8 * 1024;

  // What the client says (imap_reading.cpp).
  Task<bool> read_command();
  Task<bool> read_line(Deadline deadline);
  Task<bool> read_literal(LiteralMark mark, Deadline deadline);
  Task<bool> wait_for_input(Deadline deadline);
  std::uint64_t longest_now() const;
  Task<bool> reserve(std::uint64_t bytes, Deadline by);
  void release();

  // Connection (imap_session.cpp).
  Task<bool> start_tls();
  bool is_early() const { return state_ == State::not_authenticated; }
  Task<void> serve_command();
  Task<void> serve_logged_in(std::string word, ImapText text);
  bool may_go_on();
  void refresh();
  Task<void> catch_up();
  void record_reading();
  Task<bool> breathe();
  Task<bool> drain_output(std::size_t most);
  void untagged(std::string_view text);
  void reply(std::string_view status, std::string_view text);
  void ok(std::string_view text) { reply("OK", text); }
  void no(std::string_view text) { reply("NO", text); }
  /// Others have taken away what this client does not know to be gone: the rest is done (RFC 2180 4.1.3).
  static constexpr const char* some_are_gone = "[EXPUNGEISSUED] some of these messages are gone";
  void bad(std::string_view text);
  std::string capabilities() const;
  bool may_log_in_here() const;
  bool identify(ImapText& text);

  // Login (imap_login.cpp).
  Task<void> login(ImapText& text);
  Task<void> authenticate(ImapText& text);
  Task<void> enter(std::string address, std::string password);

  // Folders (imap_folders.cpp).
  void list(ImapText& text, bool only_subscribed);
  void select(ImapText& text, bool is_read_only);
  void status(ImapText& text);
  void create(ImapText& text);
  void remove(ImapText& text);
  void rename(ImapText& text);
  void subscribe(ImapText& text, bool is_subscribed);
  void enable(ImapText& text);
  void learn_condstore();
  void append(ImapText& text);
  bool has_room_for(std::uint64_t bytes);
  void close(bool expunges);
  Task<void> idle();
  std::string status_of(const failover::Mailbox::View& view, const std::vector<std::string>& items) const;

  // Reading (imap_fetch.cpp).
  Task<void> fetch(ImapText& text, bool by_uid);
  void fetch_one(const failover::StoredMessage& message, const FetchItems& items);
  Task<void> fetch_large(failover::StoredMessage message, const FetchItems& items);
  Task<bool> send_octets(const failover::StoredMessage& message, Range range);
  std::string facts_of(const failover::StoredMessage& message, ReadMessage& content, const FetchItems& items);
  std::optional<SectionOctets> octets_of(ReadMessage& content, const BodySection& section, std::string_view& text);
  const MimePart& structure_of(ReadMessage& content);
  ReadMessage read(const failover::StoredMessage& message) const;

  // Messages (imap_messages.cpp).
  Task<void> store(ImapText& text, bool by_uid);
  Task<void> search(ImapText& text, bool by_uid);
  Task<void> sort(ImapText& text, bool by_uid);
  Task<void> thread(ImapText& text, bool by_uid);
  void copy(ImapText& text, bool by_uid, bool moves);
  void expunge(ImapText& text, bool by_uid);
  std::vector<std::uint32_t> chosen(const SequenceSet& set, bool by_uid) const;
  std::uint32_t number_of(std::uint32_t uid) const;
  std::string flags_of(const failover::StoredMessage& message) const;
  void show_news(bool may_expunge);
  void show_flags(const failover::StoredMessage& message, bool with_uid);
  bool has_new_keyword(const failover::StoredMessage& message);
  void show_flag_names();
  Task<bool> find(const SearchCommand& command, std::vector<std::uint32_t>& uids);

  std::optional<std::string> folder_name(ImapText& text) const;
  std::shared_ptr<failover::Mailbox::View> folder(ImapText& text, std::string_view code_if_missing = "NONEXISTENT");

  Worker& worker_;
  MailboxService& service_;
  std::shared_ptr<const Settings> settings_;
  const ListenerConfig listener_;
  Wakeup wakeup_;
  Stream stream_;
  const Endpoint client_;
  std::string guesser_;  ///< the address whose wrong passwords these are: the client's, or that of a webmail's user
  const std::unique_ptr<ConnectionCounts::Place> place_;
  State state_ = State::not_authenticated;
  std::string tag_, command_;
  std::uint64_t reserved_ = 0;  ///< of MailboxService::in_memory, for the command that comes
  std::string stop_why_;
  unsigned errors_ = 0;
  std::string person_;
  std::shared_ptr<failover::Mailbox> mailbox_;
  bool knows_condstore_ = false;
  mutable bool has_read_failed_ = false;  ///< of the message that is being read
  struct KeptStructure {
    journal::RecordId entry;
    std::uint64_t blob;
    MimePart structure;
  };
  std::optional<KeptStructure> kept_;  ///< of the large message that was looked into last
  std::size_t unreadable_ = 0;         ///< of the messages that are being fetched
  std::set<journal::RecordId> read_;   ///< entries whose content was fetched, not on record yet
  Deadline turn_end_{};

  // The selected folder as the client knows it.
  std::shared_ptr<failover::Mailbox::View> view_;
  bool is_read_only_ = false;
  std::vector<std::uint32_t> uids_;
  std::uint64_t shown_modseq_ = 0;
  std::set<std::string> shown_keywords_;
};

}  // namespace holdfast::proxy
