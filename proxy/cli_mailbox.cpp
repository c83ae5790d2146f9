// `holdfast mailbox`: who has an emergency mailbox, and with which password.
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <sysexits.h>
#include <termios.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <iostream>
#include <map>
#include <set>
#include <sstream>

#include "failover/accounts.h"
#include "journal/catalog.h"
#include "journal/crypto.h"
#include "journal/canonical_address.h"
#include "journal/files.h"
#include "proxy/accounts.h"
#include "proxy/address.h"
#include "proxy/admin_client.h"
#include "proxy/cli.h"
#include "proxy/command.h"
#include "proxy/config.h"
#include "proxy/csv.h"
#include "proxy/journal_access.h"
#include "proxy/json.h"
#include "proxy/log.h"
#include "proxy/password_file.h"
#include "proxy/people.h"
#include "proxy/progress_bar.h"

namespace holdfast::proxy {
namespace {

/// Shorter ones are the operator's to decide on, with a warning.
constexpr std::size_t short_password = 8;

/// Asks the daemon, or without one opens the journal and its mailboxes for each question.
class Accounts {
 public:
  static Result<Accounts> open(const std::string& config_path) {
    Result<Config> config = load_config(config_path);
    if (!config) return Error{ErrorCode::invalid, config.error().message};
    Accounts accounts(*config);
    auto reached = ask_or_open(*config, "/mailbox/list");
    if (!reached) return reached.error();
    if (!reached->journal) return accounts;
    accounts.journal_ = std::move(reached->journal);
    auto store = failover::MailboxStore::open(accounts.journal_->path(), accounts.journal_->base_key(), journal::Environment::Mode::write);
    if (!store) return store.error();
    accounts.store_ = std::move(*store);
    return accounts;
  }

  const Config& config() const { return config_; }
  Result<Json> list() const { return store_ ? accounts_to_json(*store_) : ask_admin(config_.admin_socket, "/mailbox/list"); }
  Status set(const Json& change) const {
    if (!store_) {
      auto answer = ask_admin(config_.admin_socket, "/mailbox/set", change);
      return answer ? Status() : answer.error();
    }
    auto changed = apply_account_change(*store_, change, [this](const std::string& address) { return store_->remove(address); });
    return changed ? Status() : changed.error();
  }
  Result<std::vector<failover::Directory::Person>> directory() const {
    if (!store_) {
      auto answer = ask_admin(config_.admin_socket, "/directory/list");
      if (!answer) return answer.error();
      return people_from_json(*answer);
    }
    failover::Directory directory{failover::DirectoryOptions()};
    auto stored = journal_->take_store();
    if (Status loaded = directory.load(*stored); !loaded) return loaded.error();
    return directory.list();
  }

 private:
  explicit Accounts(Config config) : config_(std::move(config)) {}
  Config config_;
  std::shared_ptr<journal::Journal> journal_;
  std::shared_ptr<failover::MailboxStore> store_;
};

/// A password that can be read out over the telephone.
std::string new_password() {
  constexpr std::string_view letters = "abcdefghijkmnpqrstuvwxyz23456789";
  std::string password;
  journal::Key random = journal::random_key();
  for (int i = 0; i < 16; ++i) {
    if (i > 0 && i % 4 == 0) password += '-';
    password += letters[random[static_cast<std::size_t>(i)] % letters.size()];
  }
  return password;
}

std::string ask_secretly(const char* question) {
  termios before{};
  ::tcgetattr(STDIN_FILENO, &before);
  termios silent = before;
  silent.c_lflag &= ~static_cast<tcflag_t>(ECHO);
  ::tcsetattr(STDIN_FILENO, TCSANOW, &silent);
  fmt::print(stderr, "{}", question);
  std::string line;
  std::getline(std::cin, line);
  ::tcsetattr(STDIN_FILENO, TCSANOW, &before);
  fmt::print(stderr, "\n");
  return line;
}

/// The first line of the file; "-" is standard input. Without a file it is asked for.
Result<std::string> read_password(const std::string& file) {
  std::string password;
  if (file.empty()) {
    if (!::isatty(STDIN_FILENO))
      return Error{ErrorCode::invalid,
                   "say where the password is: --password-file FILE (- is standard input), or have one made "
                   "with --generate"};
    password = ask_secretly("New password: ");
    if (ask_secretly("Once more: ") != password) return Error{ErrorCode::invalid, "the two are not the same; nothing was changed"};
  } else if (file == "-") {
    std::getline(std::cin, password);
  } else {
    Result<std::string> read = read_password_file(file);
    if (!read) return read;
    password = *read;
  }
  if (password.ends_with('\r')) password.pop_back();
  if (password.empty()) return Error{ErrorCode::invalid, "the password is empty; nothing was changed"};
  if (password.size() < short_password)
    fmt::print(stderr, "holdfast: this password is short: {} characters or more are hard to guess\n", short_password);
  return password;
}

int list_mailboxes(const std::string& config, bool as_json) {
  auto accounts = Accounts::open(config);
  if (!accounts) return fail(accounts.error());
  auto all = accounts->list();
  if (!all) return fail(all.error());
  for (const Json& one : *all) {
    if (as_json)
      fmt::print("{}\n", to_line(one));
    else
      fmt::print("{:<40} {}{}\n", escape(one["address"].get<std::string>()), one["enabled"].get<bool>() ? "enabled" : "disabled",
                 one["has_password"].get<bool>() ? "" : ", no password yet");
  }
  return EX_OK;
}

int set_password(const std::string& config, const std::string& address, const std::string& file, bool generates, bool is_new) {
  if (address.find('@') == std::string::npos || address.find_first_of(" \t<>") != std::string::npos)
    return fail({ErrorCode::invalid, fmt::format("\"{}\" is no mail address", escape(address))}), EX_USAGE;
  Result<std::string> password = generates ? Result<std::string>(new_password()) : read_password(file);
  if (!password) return fail(password.error()), password.error().code == ErrorCode::invalid ? EX_USAGE : EX_NOINPUT;
  auto accounts = Accounts::open(config);
  if (!accounts) return fail(accounts.error());
  Json change = {{"address", address}, {"is_new", is_new}, {"password_hash", failover::hash_password(*password)}};
  if (Status done = accounts->set(change); !done) return fail(done.error());
  if (generates) fmt::print("{}\n", *password);
  fmt::print(stderr, "{}: {}\n", address, is_new ? "the account is there" : "the password is changed");
  return EX_OK;
}

int enable(const std::string& config, const std::string& address, bool is_enabled) {
  auto accounts = Accounts::open(config);
  if (!accounts) return fail(accounts.error());
  if (Status done = accounts->set({{"address", address}, {"enabled", is_enabled}}); !done) return fail(done.error());
  fmt::print(stderr, "{}: {}\n", address, is_enabled ? "may log in" : "may not log in any more");
  return EX_OK;
}

int remove(const std::string& config, const std::string& address) {
  auto accounts = Accounts::open(config);
  if (!accounts) return fail(accounts.error());
  if (Status done = accounts->set({{"address", address}, {"removed", true}}); !done) return fail(done.error());
  fmt::print(stderr, "{}: the account is gone, with its folders, flags and drafts; the journal's entries stay\n", address);
  return EX_OK;
}

/// Addresses, each with a password or nothing, from CSV: address,password. The separator is the first that may be one.
Result<std::vector<std::pair<std::string, std::string>>> read_csv(const std::string& path) {
  std::ifstream in(path);
  if (!in) return Error{ErrorCode::not_found, fmt::format("{}: cannot be read", path)};
  std::vector<std::pair<std::string, std::string>> rows;
  int number = 0;
  for (std::string whole; std::getline(in, whole);) {
    ++number;
    std::string_view line = csv_line(whole, number == 1);
    if (line.empty() || line.front() == '#' || (number == 1 && upper(line).starts_with("ADDRESS"))) continue;
    std::size_t separator = line.find_first_of(",;\t");
    std::vector<std::string> fields = split_csv(line, separator == std::string_view::npos ? ',' : line[separator]);
    if (fields[0].find('@') == std::string::npos)
      return Error{ErrorCode::invalid, fmt::format("{}:{}: \"{}\" is no mail address; write address,password", path, number, escape(fields[0]))};
    if (fields.size() > 2)
      return Error{ErrorCode::invalid, fmt::format("{}:{}: there are {} fields, not two; put a password with \"{}\" in it in quotes", path, number,
                                                   fields.size(), line[separator])};
    fields.resize(2);
    rows.emplace_back(std::move(fields[0]), std::move(fields[1]));
  }
  return rows;
}

/// The people in the directory; of those who were only learned, the ones in domains that a route names: a primary also takes mail
/// for the world from machines that it trusts. With domains, all of these and nobody else. Tells whom that leaves out.
std::vector<std::string> people_to_add(const Accounts& accounts, const std::vector<failover::Directory::Person>& people,
                                       const std::set<std::string>& domains) {
  std::vector<std::string> addresses;
  std::map<std::string, std::size_t> left_out;
  for (const auto& person : people) {
    if (!person.exists || !person.members.empty()) continue;
    std::string domain = journal::canonical_domain(domain_of(person.address));
    bool is_ours = person.source != failover::Source::learned || is_served(accounts.config(), domain);
    if (domains.empty() ? is_ours : domains.contains(domain))
      addresses.push_back(person.address);
    else if (domains.empty())
      ++left_out[domain];
  }
  if (left_out.empty()) return addresses;
  constexpr std::size_t most_named = 10;
  std::vector<std::pair<std::string, std::size_t>> named(most_named);
  named.resize(std::partial_sort_copy(left_out.begin(), left_out.end(), named.begin(), named.end(),
                                      [](const auto& a, const auto& b) { return a.second > b.second; }) -
               named.begin());
  std::string list;
  for (const auto& [domain, count] : named) list += fmt::format("{}{} ({})", list.empty() ? "" : ", ", escape(domain), count);
  if (left_out.size() > most_named) list += ", ...";
  fmt::print(stderr,
             "holdfast: left out, since they were only learned from mail, in domains that no route names: {}. For those of a "
             "domain of yours: --domain NAME\n",
             list);
  return addresses;
}

int import(const std::string& config, const std::string& csv, bool from_directory, const std::vector<std::string>& domains,
           const std::string& passwords_to) {
  if (csv.empty() == !from_directory) return fail({ErrorCode::invalid, "name a CSV file, or say --directory"}), EX_USAGE;
  auto accounts = Accounts::open(config);
  if (!accounts) return fail(accounts.error());
  std::vector<std::pair<std::string, std::string>> rows;
  if (from_directory) {
    auto people = accounts->directory();
    if (!people) return fail(people.error());
    std::set<std::string> wanted;
    for (const std::string& domain : domains) wanted.insert(journal::canonical_domain(domain));
    for (const std::string& address : people_to_add(*accounts, *people, wanted)) rows.emplace_back(address, "");
    if (rows.empty())
      return fail({ErrorCode::not_found, "the directory has nobody to make an account for" +
                                             (domains.empty() ? std::string() : fmt::format(" in {}", fmt::join(domains, ", ")))});
  } else {
    auto read = read_csv(csv);
    if (!read) return fail(read.error());
    rows = std::move(*read);
  }
  auto known = accounts->list();
  if (!known) return fail(known.error());
  std::set<std::string> there;
  for (const Json& one : *known) there.insert(one["address"].get<std::string>());
  std::size_t before = rows.size();
  std::erase_if(rows, [&](const auto& row) { return !there.insert(journal::canonical_address(row.first)).second; });
  bool generates = std::any_of(rows.begin(), rows.end(), [](const auto& row) { return row.second.empty(); });
  if (generates && passwords_to.empty())
    return fail({ErrorCode::invalid,
                 "passwords must be made for some of them: say with --passwords-to FILE where to write them. "
                 "Nothing was changed"}),
           EX_USAGE;
  // Written first: a password that nobody knows helps nobody.
  std::string made = "address,password\n";
  for (auto& [address, password] : rows)
    if (password.empty()) {
      password = new_password();
      made += address + "," + password + "\n";
    }
  if (generates) {
    if (::access(passwords_to.c_str(), F_OK) == 0)
      return fail(
          {ErrorCode::busy, fmt::format("{0}: is there already. If it is of an import that was interrupted, go on with: holdfast mailbox import {0}; "
                                        "else name a new file. Nothing was changed",
                                        passwords_to)});
    if (Status written = journal::write_file(passwords_to, made); !written) return fail(written.error());
  }
  const std::string same = "the same command again";
  ProgressBar bar("importing");
  std::size_t done = 0;
  for (const auto& [address, password] : rows) {
    Json change = {{"address", address}, {"is_new", true}, {"password_hash", failover::hash_password(password)}};
    if (Status set = accounts->set(change); !set)
      return fail({set.error().code, fmt::format("{}; {} of {} accounts were added. To go on: {}", set.error().message, done, rows.size(),
                                                 generates ? "holdfast mailbox import " + passwords_to + ", then " + same : same)});
    bar.show(static_cast<double>(++done) / static_cast<double>(rows.size()));
  }
  fmt::print("{} accounts added, {} were there already{}\n", rows.size(), before - rows.size(),
             generates ? "; passwords are in " + passwords_to : "");
  return EX_OK;
}

}  // namespace

void add_mailbox_commands(CLI::App& app, const std::string& config, int& exit_code) {
  static std::string address, file, passwords_to;
  static std::vector<std::string> domains;
  static bool as_json = false, generates = false, from_directory = false;
  CLI::App* group = app.add_subcommand("mailbox", "emergency mailboxes: who may log in");
  group->require_subcommand(1);
  group->fallthrough();
  CLI::App* command = group->add_subcommand("list", "accounts");
  command->add_flag("--json", as_json, "one JSON object a line");
  command->callback([&config, &exit_code] { exit_code = list_mailboxes(config, as_json); });
  for (bool is_new : {true, false}) {
    command = group->add_subcommand(is_new ? "add" : "passwd", is_new ? "a new account" : "change a password");
    command->add_option("ADDRESS", address, "the person's mail address")->required();
    command->add_option("--password-file", file, "a file whose first line is the password; - is standard input. Default: it is asked for");
    command->add_flag("--generate", generates, "make a password, and print it");
    command->callback([&config, &exit_code, is_new] { exit_code = set_password(config, address, file, generates, is_new); });
  }
  for (bool is_enabled : {true, false}) {
    command = group->add_subcommand(is_enabled ? "enable" : "disable",
                                    is_enabled ? "let somebody log in again" : "let somebody log in no more; nothing is deleted");
    command->add_option("ADDRESS", address, "the person's mail address")->required();
    command->callback([&config, &exit_code, is_enabled] { exit_code = enable(config, address, is_enabled); });
  }
  command = group->add_subcommand("remove", "take an account away, with the folders, flags and drafts of the person");
  command->add_option("ADDRESS", address, "the person's mail address")->required();
  command->callback([&config, &exit_code] { exit_code = remove(config, address); });
  command = group->add_subcommand("import", "accounts for many; those who have one keep it as it is");
  command->add_option("FILE", file, "CSV: address,password; where the password is missing, one is made");
  CLI::Option* directory = command->add_flag("--directory", from_directory, "everybody whom the directory knows, instead of a file");
  command->add_option("--domain", domains, "only people of this domain; may be said several times")->needs(directory);
  command->add_option("--passwords-to", passwords_to, "a new file (readable by you alone) for the passwords that are made");
  command->callback([&config, &exit_code] { exit_code = import(config, file, from_directory, domains, passwords_to); });
}

}  // namespace holdfast::proxy
