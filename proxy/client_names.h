// ClientNames: what a client's address is called, for a primary that is told who the client is and does not look itself (XCLIENT).
//
// Found out as mail servers do: by the name that the address has, and whether that name leads back to it. On threads of their own, since
// DNS may take its time; what was found is remembered for a while.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "proxy/loop.h"
#include "proxy/task.h"

namespace holdfast::proxy {

struct ClientName {
  std::string reverse;              ///< what the address is called; empty: nothing that is a host name
  std::string verified;             ///< the same, where that name has this address; else empty
  bool is_reverse_unsure = false;   ///< where reverse is empty: DNS did not say, it may have a name
  bool is_verified_unsure = false;  ///< likewise
};

class ClientNames {
 public:
  ClientNames() = default;
  ~ClientNames() { stop(); }

  /// Waits for DNS, for some seconds at most; of what is not known by then it is not sure.
  ///
  /// @param address  an IP address
  /// @param is_moot  whether nobody waits any more; asked now and then. May be empty
  Task<ClientName> find(std::string address, Wakeup& wakeup, std::function<bool()> is_moot = {});

  /// Nobody is told anything from now on: to be called before the loops go.
  void stop();

 private:
  struct Answer {
    ClientName name;
    bool is_there = false;
    Wakeup* wakeup = nullptr;  ///< null: nobody waits any more
  };
  using Asker = std::pair<Loop*, std::shared_ptr<Answer>>;
  struct Known {
    ClientName name;
    Deadline until;
  };
  /// Shared with the threads, which may be waiting for an answer when we end: nobody waits for that.
  struct State {
    std::mutex mutex;
    std::condition_variable wake;
    std::map<std::string, Known> known;
    std::map<std::string, std::vector<Asker>> asked;  ///< by address; also those that are being looked up
    std::deque<std::string> queue;                    ///< those that are not yet
    std::size_t threads = 0, idle = 0;
    Deadline last_answer = Clock::now();  ///< of DNS
    bool is_silence_told = false;         ///< in the log
    bool is_stopping = false;
  };

  /// What the system's resolver says now. Blocks.
  static ClientName look_up(const std::string& address);
  void add_thread();
  void tell_of_silence(const std::string& address);
  static void run(std::shared_ptr<State> state);
  static void remember(State& state, const std::string& address, const ClientName& name);
  Duration ask(const std::string& address, Loop& loop, const std::shared_ptr<Answer>& answer);

  const std::shared_ptr<State> state_ = std::make_shared<State>();
};

}  // namespace holdfast::proxy
