#include "proxy/cli_job.h"

#include <chrono>
#include <thread>

#include "proxy/admin_client.h"
#include "proxy/journal_access.h"
#include "proxy/progress_bar.h"

namespace holdfast::proxy {

Result<Json> do_job(const Config& config, const std::string& resource, const Json& body, const std::string& what,
                    const std::function<Result<Json>(journal::Journal&)>& do_it_here) {
  auto reached = ask_or_open(config, resource, body);
  if (!reached) return reached.error();
  if (reached->journal) return do_it_here(*reached->journal);
  ProgressBar bar(what);
  for (;;) {
    auto state = ask_admin(config.admin_socket, "/job", reached->answer);
    if (!state) return state.error();
    if (!(*state)["running"].get<bool>()) return (*state)["result"];
    bar.show((*state)["progress"].get<double>());
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
  }
}

}  // namespace holdfast::proxy
