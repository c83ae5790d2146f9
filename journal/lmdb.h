// LMDB's environment, transaction and cursor as owning types. The only file that frees LMDB handles.
//
// Every environment here has one unnamed database with byte-string keys in their natural order. All are opened with
// MDB_NOTLS, so a read transaction belongs to its object and not to a thread.
#pragma once

#include <lmdb.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <shared_mutex>
#include <string>
#include <string_view>

#include "journal/result.h"

namespace holdfast::journal {

class Transaction;

/// Turns an LMDB or errno code into an Error; what names the thing that failed, for example a path.
Error lmdb_error(int code, const std::string& what);

/// After a write to its first pages has failed, LMDB refuses everything until the file is opened anew. Whoever begins a transaction then
/// does that, and nobody else notices.
class Environment {
 public:
  /// sealed: reading a file that nobody writes, without a lock; it may be replaced by another one at any time.
  enum class Mode { read, write, sealed };

  /// Opens the file at path, or makes it in Mode::write. map_size is in bytes; a reader passes 0 and takes the file's own.
  /// An environment must not be opened twice in one process.
  static Result<Environment> open(const std::string& path, Mode mode, std::uint64_t map_size);

  MDB_env* get() const { return opened_->env.get(); }
  const std::string& path() const { return opened_->path; }
  /// Lets go of the map's pages that this process has touched. They stay in the system's cache.
  void forget_pages() const;
  /// Makes a file that was cut short long enough again: to look at a page behind its end would end the process. What was lost is
  /// zeros then, which LMDB takes for damage. Error: corrupt, when the file may not be written.
  Status fill_up() const;
  /// Of the file that is open, whatever stands at its path by now.
  Result<std::uint64_t> file_size() const;
  /// Whether the file at the path is the one that is open: somebody may have removed it, or put another there.
  bool is_in_place() const;
  /// Has the disk keep the file's next bytes for it, behind those in use, without making it longer. A disk that cannot do that does not.
  void reserve(std::uint64_t bytes) const;
  /// Bytes in use, from the start of the file to the last page. 0 while it is closed since it could not be opened anew.
  std::uint64_t used_bytes() const;
  /// Grows with each commit.
  std::uint64_t commits() const;

 private:
  friend class Transaction;
  struct Close {
    void operator()(MDB_env* env) const { mdb_env_close(env); }
  };
  struct Opened {
    Opened(std::string the_path, Mode the_mode, std::uint64_t size) : path(std::move(the_path)), mode(the_mode), map_size(size) {}
    Status open();
    Status open_anew(const MDB_env* failed);
    /// Called in each write transaction: now and then it looks whether readers have died, whose pages could never be used again.
    void look_after_readers();

    const std::string path;
    const Mode mode;
    const std::uint64_t map_size;
    std::unique_ptr<MDB_env, Close> env;  ///< null when it could not be opened anew
    std::shared_mutex in_use;             ///< held by each transaction; alone by who opens it anew
    std::uint32_t writes = 0;             ///< under LMDB's own lock of writers
  };
  Environment() = default;
  std::unique_ptr<Opened> opened_;
};

/// A transaction on the one database of an environment. Aborted unless committed.
class Transaction {
 public:
  static Result<Transaction> begin(const Environment& env, Environment::Mode mode);

  /// The value stays valid until the transaction ends (or, when writing, until the next change).
  Result<std::optional<std::string_view>> get(std::string_view key) const;
  /// MDB_APPEND in flags promises that key is greater than all before it.
  Status put(std::string_view key, std::string_view value, unsigned flags = 0);
  /// Deleting what is not there is no error.
  Status erase(std::string_view key);
  /// Deletes everything in the database.
  Status drop_all();
  /// After this, whatever it returns, the transaction is over. A success is synced to the disk.
  Status commit();

  MDB_txn* get() const { return txn_.get(); }
  MDB_dbi database() const { return database_; }
  const std::string& path() const { return path_; }

 private:
  struct Abort {
    void operator()(MDB_txn* txn) const { mdb_txn_abort(txn); }
    std::shared_lock<std::shared_mutex> in_use;  ///< of the environment
  };
  int begin_on(Environment::Opened& file, Environment::Mode mode, const MDB_env*& failed);
  std::unique_ptr<MDB_txn, Abort> txn_;
  MDB_dbi database_ = 0;
  std::string path_;
};

/// A position in a transaction's database; lives no longer than the transaction.
class Cursor {
 public:
  struct Item {
    std::string_view key, value;
  };
  /// Whether the value under a key is wanted. Others are not looked at, which would bring their pages in from
  /// the disk, and are empty.
  using WantsValue = bool (*)(std::string_view key);
  static Result<Cursor> open(const Transaction& transaction, WantsValue wants_value = nullptr);

  /// The first item whose key is not less than key.
  Result<std::optional<Item>> at_or_after(std::string_view key);
  Result<std::optional<Item>> next();
  Result<std::optional<Item>> previous();
  Result<std::optional<Item>> last();

 private:
  Result<std::optional<Item>> move(std::string_view key, MDB_cursor_op operation);
  struct Close {
    void operator()(MDB_cursor* cursor) const { mdb_cursor_close(cursor); }
  };
  std::unique_ptr<MDB_cursor, Close> cursor_;
  WantsValue wants_value_ = nullptr;
  std::string path_;
};

}  // namespace holdfast::journal
