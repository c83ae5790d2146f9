#include "proxy/cli_job.h"

#include <chrono>
#include <thread>

#include "proxy/admin.h"
#include "proxy/journal_access.h"
#include "proxy/progress_bar.h"

namespace holdfast::proxy {

Result<Json> do_job(const Config& config, const std::string& resource, const Json& body,
                    const std::string& what,
                    const std::function<Result<Json>(journal::Journal&)>& do_it_here) {
  if (!config.admin_socket.empty()) {
    auto started = ask_admin(config.admin_socket, resource, body);
    // Another job is at work, such as what a start finishes: it is soon over.
    for (int tries = 0; !started && started.error().code == ErrorCode::busy && tries < 100; ++tries) {
      std::this_thread::sleep_for(std::chrono::milliseconds(100));
      started = ask_admin(config.admin_socket, resource, body);
    }
    if (started) {
      ProgressBar bar(what);
      for (;;) {
        auto state = ask_admin(config.admin_socket, "/job", *started);
        if (!state) return state.error();
        if (!(*state)["running"].get<bool>()) return (*state)["result"];
        bar.show((*state)["progress"].get<double>());
        std::this_thread::sleep_for(std::chrono::milliseconds(50));
      }
    }
    if (started.error().code != ErrorCode::unavailable) return started.error();
  }
  auto journal = open_journal(config);
  if (!journal) return journal.error();
  return do_it_here(**journal);
}

}  // namespace holdfast::proxy
