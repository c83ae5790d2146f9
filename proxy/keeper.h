// The keeper: what is learned of recipients and primaries outlives the process. It stores that once a second, on a thread of its own, so
// that no loop waits for the disk; what a kill left unstored of the recipients, and all of it when the store is lost, it learns from the journal.
#pragma once

#include <condition_variable>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>

#include "failover/clock_watch.h"
#include "failover/directory.h"
#include "journal/journal.h"
#include "journal/sealed_store.h"
#include "proxy/board.h"
#include "proxy/loop.h"

namespace holdfast::proxy {

class Keeper {
 public:
  /// All must outlive it.
  Keeper(journal::Journal& journal, std::unique_ptr<journal::SealedStore> store, failover::Directory& directory, Boards& boards);
  ~Keeper() { stop(); }
  Keeper(const Keeper&) = delete;
  Keeper& operator=(const Keeper&) = delete;

  /// Brings back what was stored, and what the journal tells of the last moments before a kill. Where it tells more, for want of a store,
  /// that comes in the background. Once.
  void start();
  /// Stores what is left.
  void stop();

 private:
  void load();
  void run();
  bool is_stopping();
  void learn_from_journal(std::size_t most);
  void learn_from(const journal::Entry& entry);
  void store();
  Status store_all();

  journal::Journal& journal_;
  std::unique_ptr<journal::SealedStore> store_;
  failover::Directory& directory_;
  Boards& boards_;
  /// The recipients of all entries up to here are in the directory, and in the store's.
  journal::RecordId learned_to_ = 0, stored_to_ = 0;
  failover::ClockWatch clock_;
  std::map<std::string, std::string> unstored_;  ///< of primaries; until the disk takes it
  std::mutex mutex_;
  std::condition_variable wake_;
  bool is_stopping_ = false;
  std::thread thread_;
};

}  // namespace holdfast::proxy
