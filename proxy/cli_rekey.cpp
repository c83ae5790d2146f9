// `holdfast journal rekey`: another master key.
#include <fmt/format.h>
#include <sysexits.h>

#include "proxy/cli.h"
#include "proxy/cli_job.h"
#include "proxy/journal_access.h"

namespace holdfast::proxy {
namespace {

int rekey(const std::string& config_path, const std::string& new_key, journal::Rekey how, const std::string& reason) {
  Result<Config> config = load_config(config_path);
  if (!config) return fail(config.error());
  const journal::MasterKeySource& source = config->journal.key;
  const bool finishes = how == journal::Rekey::finish, is_lost = how == journal::Rekey::replace_lost;
  if (!source.command.empty() && new_key.empty() && !finishes)
    return fail({ErrorCode::invalid,
                 "the master key comes from journal.key_command: make a new one and name its file with "
                 "--new-key-file"}),
           EX_USAGE;
  if (finishes && !new_key.empty()) return fail({ErrorCode::invalid, "--finish comes later, alone, when the command gives the new key"}), EX_USAGE;
  auto done = do_job(*config, "/journal/rekey", {{"new_key_file", new_key}, {"finish", finishes}, {"lost", is_lost}, {"reason", reason}}, "rekeying",
                     [&](journal::Journal& journal) -> Result<Json> {
                       auto rekeyed = journal.rekey(source, new_key, how, own_name(), reason);
                       if (!rekeyed) return rekeyed.error();
                       return Json{{"finished", *rekeyed}};
                     });
  if (!done && is_lost)
    return fail({done.error().code, done.error().message + "; a lost key can be replaced while the Holdfast runs that started with it, and by none "
                                                           "that starts later"});
  if (!done)
    return fail({done.error().code, done.error().message + "; the key in use opens the journal as before, and the same command "
                                                           "can be run again"});
  bool is_finished = (*done)["finished"].get<bool>();
  if (finishes && !is_finished)
    return fail({ErrorCode::busy,
                 "journal.key_command still gives the old key, and both open the journal; put the new one "
                 "there "
                 "first"}),
           EX_TEMPFAIL;
  if (!is_finished)
    fmt::print(
        "both keys open the journal now. Put the new one where journal.key_command finds it, then run: "
        "holdfast journal "
        "rekey --finish --reason ...\n");
  else if (source.command.empty())
    fmt::print(
        "the master key is another one now, in {}: copy it to where you keep the old one. The old key opens "
        "nothing but "
        "backups made before; make a new backup\n",
        source.file);
  else
    fmt::print(
        "only the new master key opens the journal now. The old key opens nothing but backups made before; "
        "make a new "
        "backup\n");
  return EX_OK;
}

}  // namespace

void add_rekey_command(CLI::App& group, const std::string& config, int& exit_code) {
  static std::string new_key, reason;
  static bool finishes = false, is_lost = false;
  CLI::App* app = group.add_subcommand("rekey", "change the master key; content is not rewritten");
  app->add_option("--new-key-file", new_key, "the new key: 64 hexadecimal digits, base64, or 32 bytes; default: a random one");
  CLI::Option* finish = app->add_flag("--finish", finishes, "with journal.key_command: it gives the new key now, let go of the old one");
  app->add_flag("--lost", is_lost, "the key in use is nowhere any more: the running Holdfast, which still has what it opens, takes a new one")
      ->excludes(finish);
  app->add_option("--reason", reason, "why; goes into the journal")->required();
  app->callback([&config, &exit_code] {
    auto how = finishes ? journal::Rekey::finish : is_lost ? journal::Rekey::replace_lost : journal::Rekey::change;
    exit_code = rekey(config, new_key, how, reason);
  });
}

}  // namespace holdfast::proxy
