// What LMDB is trusted with, when processes die and disks err.
#include "journal/lmdb.h"

#include <fstream>
#include <random>
#include <sstream>

#include "journal/cell.h"
#include "journal/page_check.h"
#include "journal_fixture.h"

using namespace holdfast;
using namespace holdfast::journal;

TEST_CASE("pages that a killed reader looked at are used again") {
  TemporaryFolder folder;
  const std::string path = folder.path + "/one.lmdb";
  auto put = [](const Environment& environment, int round) {
    auto transaction = Transaction::begin(environment, Environment::Mode::write);
    REQUIRE(transaction);
    for (int key = 0; key < 100; ++key) REQUIRE(transaction->put(std::to_string(key), std::string(1000, static_cast<char>('a' + round % 26))));
    REQUIRE(transaction->commit());
  };
  {
    auto environment = Environment::open(path, Environment::Mode::write, 1 << 30);
    REQUIRE(environment);
    put(*environment, 0);
  }
  int ends[2];
  REQUIRE(::pipe(ends) == 0);
  pid_t reader = ::fork();
  if (reader == 0) {
    auto environment = Environment::open(path, Environment::Mode::read, 0);
    auto transaction = Transaction::begin(*environment, Environment::Mode::read);
    (void)!::write(ends[1], "r", 1);
    for (;;) ::pause();
  }
  char byte;
  REQUIRE(::read(ends[0], &byte, 1) == 1);
  auto environment = Environment::open(path, Environment::Mode::write, 1 << 30);
  REQUIRE(environment);
  put(*environment, 1);
  ::kill(reader, SIGKILL);
  ::waitpid(reader, nullptr, 0);
  for (int round = 0; round < 300; ++round) put(*environment, round);
  const std::uint64_t used = environment->used_bytes();
  for (int round = 0; round < 1000; ++round) put(*environment, round);
  CHECK(environment->used_bytes() < used * 11 / 10);
  ::close(ends[0]);
  ::close(ends[1]);
}

TEST_CASE("whatever LMDB has written passes the check of the pages that it writes next; noise there does not") {
  TemporaryFolder folder;
  const std::string path = folder.path + "/one.lmdb";
  std::mt19937 random(7);
  auto cell = [](std::uint64_t number) { return cell_key(number, false); };
  std::uint64_t next = 1;
  bool appends = GENERATE(true, false);  // as a segment is written, and the worst that could be
  {
    auto environment = Environment::open(path, Environment::Mode::write, 1 << 30);
    REQUIRE(environment);
    for (int commit = 0; commit < 400; ++commit) {
      auto transaction = Transaction::begin(*environment, Environment::Mode::write);
      REQUIRE(transaction);
      for (auto left = random() % (commit % 50 == 0 ? 2000 : 30); left > 0; --left) {
        std::string value(random() % 10 == 0 ? 20'000 : random() % 4080, 'x');
        if (appends)
          REQUIRE(transaction->put(cell(next++), value, MDB_APPEND));
        else if (random() % 3 == 0)
          REQUIRE(transaction->erase(cell(random() % 3000)));
        else
          REQUIRE(transaction->put(cell(random() % 3000), value));
      }
      REQUIRE(transaction->commit());
      Status checked = check_pages_written_next(path);
      UNSCOPED_INFO(commit << ": " << (checked ? "" : checked.error().message));
      REQUIRE(checked);
    }
  }
  std::ostringstream read;
  read << std::ifstream(path, std::ios::binary).rdbuf();
  const std::string whole = read.str();
  for (std::size_t begin : {0U, 10U, 12U, 14U, 16U}) {
    std::string noisy = whole;
    for (std::size_t page = 2 * 4096; page < noisy.size(); page += 4096) noisy[page + begin] = static_cast<char>(~noisy[page + begin]);
    std::ofstream(path, std::ios::binary) << noisy;
    Status checked = check_pages_written_next(path);
    CHECK(!checked);
  }
  std::ofstream(path, std::ios::binary) << "no database";
  CHECK(check_pages_written_next(path));
}
