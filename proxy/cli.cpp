#include "proxy/cli.h"

#include <fmt/format.h>
#include <sysexits.h>

#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <system_error>

#include "journal/catalog.h"
#include "proxy/cautions.h"
#include "proxy/certificate_watch.h"
#include "proxy/config.h"
#include "proxy/log.h"
#include "proxy/server.h"
#include "proxy/thread_shortage.h"
#include "proxy/tls.h"

namespace holdfast::proxy {
namespace {

int check(const std::string& path) {
  Result<Config> config = load_config(path);
  if (!config) return fail(config.error());
  auto tls = Tls::load(config->tls);
  if (!tls) return fail(tls.error());
  for (const Tls::Shown& one : (*tls)->shown())
    if (std::string caution = caution_about(one, journal::now_us()); !caution.empty())
      fmt::print(stderr, "{}: a word of caution about {}: {}\n", path, one.file, caution);
  for (const Caution& one : cautions_about(*config))
    fmt::print(stderr, "{}: a word of caution about {} ({}): {}\n", path, one.key, one.value, one.problem);
  fmt::print("{}: ok\n", path);
  return EX_OK;
}

}  // namespace

int fail(const Error& error) {
  fmt::print(stderr, "holdfast: {}\n", printable(error.message));
  switch (error.code) {
    case ErrorCode::invalid: return EX_CONFIG;
    case ErrorCode::not_found: return EX_NOINPUT;
    case ErrorCode::permission: return EX_NOPERM;
    case ErrorCode::wrong_key: return EX_CONFIG;
    case ErrorCode::corrupt: return EX_DATAERR;
    case ErrorCode::io: return EX_IOERR;
    case ErrorCode::busy:
    case ErrorCode::no_space:
    case ErrorCode::unavailable:
    case ErrorCode::no_daemon: return EX_TEMPFAIL;
  }
  return EX_SOFTWARE;
}

namespace {

/// A variable that a script left unset must not mean "all": nothing that is asked for may be empty.
void refuse_empty_values(CLI::App& app) {
  static const CLI::Validator is_given([](std::string& value) { return value.empty() ? std::string("what is given is empty") : std::string(); }, "");
  for (CLI::Option* option : app.get_options())
    if (option->get_type_size() > 0) option->check(is_given);
  for (CLI::App* command : app.get_subcommands({})) refuse_empty_values(*command);
}

/// The reader of our output may have gone because it has seen enough: that is no news to anybody.
int fail_to_write(int reason) {
  if (reason != EPIPE) fmt::print(stderr, "holdfast: cannot write the output: {}\n", std::strerror(reason));
  return EX_IOERR;
}

}  // namespace

int run_command_line(int argc, char** argv) {
  std::signal(SIGXFSZ, SIG_IGN);  // a file that may not grow more is an error of that write
  CLI::App app{"Holdfast: an SMTP relay that keeps a copy of every message"};
  app.set_version_flag("--version", "holdfast " HOLDFAST_VERSION);
  app.require_subcommand(1);
  app.fallthrough();
  std::string config = "/etc/holdfast/holdfast.yaml";
  app.add_option("-c,--config", config, "the configuration file")->capture_default_str();
  int exit_code = EX_OK;

  app.add_subcommand("serve", "relay and journal mail, in the foreground. SIGHUP reloads, SIGTERM finishes and ends")->callback([&] {
    exit_code = serve(config);
  });
  app.add_subcommand("check", "say whether a configuration is valid")->callback([&] { exit_code = check(config); });
  add_status_command(app, config, exit_code);
  add_failover_commands(app, config, exit_code);
  add_journal_commands(app, config, exit_code);
  add_mailbox_commands(app, config, exit_code);

  refuse_empty_values(app);
  try {
    app.parse(argc, argv);
    if (std::fflush(stdout) != 0) return fail_to_write(errno);
  } catch (const CLI::RequiredError& problem) {
    std::vector<std::string> unknown = app.remaining(true);
    if (unknown.empty()) return app.exit(problem), EX_USAGE;
    fmt::print(stderr, "holdfast: there is no command \"{}\"; see holdfast --help\n", escape(unknown.front()));
    return EX_USAGE;
  } catch (const CLI::ParseError& problem) {
    return app.exit(problem) == 0 ? EX_OK : EX_USAGE;
  } catch (const std::system_error& problem) {
    if (std::ferror(stdout)) return fail_to_write(problem.code().value());  // fmt::print's
    bool is_out_of_threads = problem.code() == std::errc::resource_unavailable_try_again;
    fmt::print(stderr, "holdfast: {}\n", is_out_of_threads ? thread_shortage(problem).message : problem.what());
    return EX_OSERR;
  }
  return exit_code;
}

}  // namespace holdfast::proxy
