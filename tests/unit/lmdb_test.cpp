// What LMDB is trusted with, when processes die.
#include "journal/lmdb.h"

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
