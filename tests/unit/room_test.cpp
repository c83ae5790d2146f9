#include "journal/room.h"

#include <fcntl.h>

#include "journal_fixture.h"

using namespace holdfast::journal;

namespace {

/// Then no room is made, and there is nothing to see.
bool disk_is_nearly_full(const std::string& folder) {
  bool is_full = std::filesystem::space(folder).available < 600ULL * 1024 * 1024;
  if (is_full) WARN("not tested: the disk is nearly full");
  return is_full;
}

template <class Condition>
bool comes_true(Condition condition) {
  for (int i = 0; i < 2000 && !condition(); ++i) std::this_thread::sleep_for(std::chrono::milliseconds(5));
  return condition();
}

}  // namespace

TEST_CASE("room is made behind what is used, and cut off at the end") {
  TemporaryFolder folder;
  if (disk_is_nearly_full(folder.path)) return;
  std::string path = folder.path + "/file";
  std::ofstream(path) << std::string(8192, 'x');
  Room room;
  room.enter(path, 8192);
  CHECK(comes_true([&] { return std::filesystem::file_size(path) > 512 * 1024; }));
  room.leave(8192);
  CHECK(std::filesystem::file_size(path) == 8192);
}

TEST_CASE("room never overwrites what is written beyond it meanwhile") {
  TemporaryFolder folder;
  std::string path = folder.path + "/file";
  holdfast::FileDescriptor file(::open(path.c_str(), O_RDWR | O_CREAT, 0600));
  Room room;
  room.enter(path, 0);
  // Faster than room can be made, so that the file's end is passed again and again.
  constexpr std::size_t pieces = 1500, size = 64 * 1024;
  for (std::size_t i = 0; i < pieces; ++i) {
    std::string piece(size, static_cast<char>('a' + i % 26));
    REQUIRE(::pwrite(file.get(), piece.data(), size, static_cast<off_t>(i * size)) == static_cast<ssize_t>(size));
    room.used((i + 1) * size);
  }
  if (!disk_is_nearly_full(folder.path)) CHECK(comes_true([&] { return std::filesystem::file_size(path) > pieces * size; }));
  room.leave(pieces * size);
  CHECK(std::filesystem::file_size(path) == pieces * size);
  std::string found(size, '\0');
  std::size_t spoilt = 0;
  for (std::size_t i = 0; i < pieces; ++i) {
    REQUIRE(::pread(file.get(), found.data(), size, static_cast<off_t>(i * size)) == static_cast<ssize_t>(size));
    spoilt += found != std::string(size, static_cast<char>('a' + i % 26));
  }
  CHECK(spoilt == 0);
}

TEST_CASE_METHOD(JournalFixture, "a journal that was closed has no room left in its files") {
  auto journal = open();
  REQUIRE(journal);
  std::string path = segment_path(options.path, 1);
  if (!disk_is_nearly_full(folder.path)) CHECK(comes_true([&] { return std::filesystem::file_size(path) > 512 * 1024; }));
  *journal = nullptr;
  CHECK(std::filesystem::file_size(path) < 512 * 1024);
}
