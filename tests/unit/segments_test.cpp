// Journals of many segments: few are open at a time, and what is in none of those that matter is not read.
#include "journal/segments.h"

#include <fcntl.h>
#include <sys/mman.h>

#include <catch2/catch.hpp>

#include "journal/bytes.h"
#include "journal/write_record.h"
#include "journal_fixture.h"

using namespace holdfast;
using namespace holdfast::journal;

namespace {

std::size_t open_segments(const std::string& journal) {
  std::set<std::string> open;
  for (const auto& descriptor : std::filesystem::directory_iterator("/proc/self/fd")) {
    std::error_code ignored;
    std::string file = std::filesystem::read_symlink(descriptor, ignored).string();
    if (file.starts_with(segment_folder(journal)) && file.ends_with(".lmdb")) open.insert(file);
  }
  return open.size();
}

/// Changes what stands under a key of a segment.
void change(const std::string& journal, std::uint32_t number, CellNumber cell, bool is_record, const std::function<void(std::string&)>& how) {
  auto environment = Environment::open(segment_path(journal, number), Environment::Mode::write, 0);
  REQUIRE(environment);
  auto transaction = Transaction::begin(*environment, Environment::Mode::write);
  REQUIRE(transaction);
  auto value = transaction->get(cell_key(cell, is_record));
  REQUIRE(value);
  std::string changed((*value).value());
  how(changed);
  REQUIRE(transaction->put(cell_key(cell, is_record), changed));
  REQUIRE(transaction->commit());
}

/// Says in a segment's header when it was begun.
void begin_at(const std::string& journal, std::uint32_t number, std::int64_t created_us) {
  ByteWriter time;
  time.integer(created_us);
  constexpr std::size_t place = 8 + 4 + 4 + 8;  // as FORMAT.md has it
  change(journal, number, 0, false, [&](std::string& header) { header.replace(place, 8, time.take()); });
}

/// The share of a file that is in memory, or, where the file system allows it, what is left when it is let
/// go.
double share_in_memory(const std::string& path, bool lets_go) {
  FileDescriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  REQUIRE(::fdatasync(file.get()) == 0);
  if (lets_go) ::posix_fadvise(file.get(), 0, 0, POSIX_FADV_DONTNEED);
  std::size_t size = std::filesystem::file_size(path);
  void* map = ::mmap(nullptr, size, PROT_READ, MAP_SHARED, file.get(), 0);
  std::vector<unsigned char> pages((size + 4095) / 4096);
  REQUIRE(::mincore(map, size, pages.data()) == 0);
  ::munmap(map, size);
  auto there = std::count_if(pages.begin(), pages.end(), [](unsigned char page) { return (page & 1) != 0; });
  return static_cast<double>(there) / static_cast<double>(pages.size());
}

std::int64_t hours(int count) { return count * 3'600'000'000LL; }

}  // namespace

TEST_CASE_METHOD(JournalFixture, "few segments are open at a time, however many a journal has, and every record is found") {
  constexpr std::size_t many = 100, most_open = 70;
  std::vector<RecordId> ids;
  {
    auto journal = open();
    REQUIRE(journal);
    for (std::size_t i = 0; i < many; ++i) {
      ids.push_back(add(**journal, some_content(100)));
      end_segment(**journal);
    }
    CHECK(open_segments(options.path) <= most_open);
    for (std::size_t i = 0; i < many; ++i) {
      auto entry = (*journal)->entry(ids[i * 37 % many]);
      REQUIRE(entry);
      CHECK((*journal)->frame(*entry, 0));
    }
    CHECK((*journal)->messages_after(0, many, [](const Error& damage) { FAIL(damage.message); })->size() == many);
    CHECK_FALSE((*journal)->entry(ids[many / 2] + 1));
    CHECK(open_segments(options.path) <= most_open);
  }
  auto reader = this->reader();
  std::vector<RecordId> seen;
  REQUIRE(reader->each({}, false, [&](const Entry& entry) { return seen.push_back(entry.id), true; }));
  CHECK(seen == ids);
  for (RecordId id : ids) CHECK(content_of(*reader, id) == some_content(100));
  CHECK(open_segments(options.path) <= most_open);
  CHECK(problems() == std::vector<std::string>());
}

TEST_CASE_METHOD(JournalFixture, "a segment that was closed for others is the same object as long as somebody uses it") {
  {
    auto journal = open();
    REQUIRE(journal);
    for (int i = 0; i < 80; ++i) {
      add(**journal, "x");
      end_segment(**journal);
    }
  }
  auto keys = KeyRing::open(options.path, options.key);
  REQUIRE(keys);
  Segments segments(options.path, *keys, *list_segments(options.path));
  auto in_use = segments.get(1);
  REQUIRE(in_use);
  for (std::uint32_t number : segments.numbers(2)) REQUIRE(segments.get(number));
  CHECK(segments.get(1)->get() == in_use->get());
  // Replaced: who asks now gets another.
  segments.forget(1);
  CHECK(segments.get(1)->get() != in_use->get());
  // Asking for one that is not there does not make it one of the journal's.
  REQUIRE_FALSE(segments.get(1000));
  REQUIRE_FALSE(segments.place(2000));
  segments.forget(3000);
  CHECK(segments.numbers(1000).empty());
  segments.remove(1);
  CHECK(segments.numbers().front() == 2);
}

TEST_CASE_METHOD(JournalFixture, "records are found around segments that are damaged or gone") {
  std::vector<RecordId> ids;
  {
    auto journal = open();
    REQUIRE(journal);
    for (int i = 0; i < 9; ++i) {
      ids.push_back(add(**journal, some_content(10)));
      end_segment(**journal);
    }
  }
  const std::vector<std::set<std::uint32_t>> cases = {
      {}, {1}, {9}, {5}, {1, 2, 3, 4, 5}, {4, 5, 6, 7, 8, 9}, {1, 3, 5, 7, 9}, {1, 2, 3, 4, 5, 6, 7, 8, 9}};
  for (bool is_gone : {false, true})
    for (const auto& bad : cases) {
      const std::string kept = folder.path + "/kept";
      std::filesystem::copy(segment_folder(options.path), kept);
      for (std::uint32_t number : bad) {
        std::filesystem::resize_file(segment_path(options.path, number), 5000);
        if (is_gone) std::filesystem::remove(segment_path(options.path, number));
      }
      {
        auto reader = this->reader();
        for (std::uint32_t number = 1; number <= 9; ++number) {
          CAPTURE(is_gone, number, bad.size());
          CHECK((content_of(*reader, ids[number - 1]) == some_content(10)) == !bad.contains(number));
        }
      }
      std::filesystem::remove_all(segment_folder(options.path));
      std::filesystem::rename(kept, segment_folder(options.path));
    }
}

TEST_CASE_METHOD(JournalFixture, "a filter on time reads the segments that may hold such entries, and misses none") {
  const std::int64_t start = now_us() - hours(1000);
  constexpr int count = 8;
  std::vector<RecordId> ids;
  {
    auto journal = open();
    REQUIRE(journal);
    for (int i = 0; i < count; ++i) {
      ids.push_back(add(**journal, "x", 1, start + hours(10 * i + 5)));
      end_segment(**journal);
    }
  }
  for (std::uint32_t i = 0; i <= count; ++i) begin_at(options.path, i + 1, start + hours(static_cast<int>(10 * i)));
  auto found = [&](std::optional<int> since, std::optional<int> until, std::uint64_t* damaged = nullptr) {
    Filter filter;
    if (since) filter.since_us = start + hours(*since);
    if (until) filter.until_us = start + hours(*until);
    auto reader = this->reader();
    auto passing = reader->ids(filter);
    REQUIRE(passing);
    if (damaged) *damaged = reader->damaged();
    return *passing;
  };
  auto expected = [&](std::optional<int> since, std::optional<int> until) {
    std::vector<RecordId> those;
    for (int i = 0; i < count; ++i)
      if ((!since || 10 * i + 5 >= *since) && (!until || 10 * i + 5 < *until)) those.push_back(ids[static_cast<std::size_t>(i)]);
    return those;
  };
  auto check_all = [&] {
    for (int since = -10; since <= 100; since += 5)
      for (int until = since; until <= 100; until += 5) {
        CAPTURE(since, until);
        CHECK(found(since, until) == expected(since, until));
        CHECK(found(since, {}) == expected(since, {}));
        CHECK(found({}, until) == expected({}, until));
      }
  };
  check_all();

  SECTION("what is outside is not read") {
    std::filesystem::remove(options.path + "/catalog.lmdb");
    for (std::uint32_t number : {2U, 7U}) change(options.path, number, ids[number - 1], true, [](std::string& record) { record.back() ^= 1; });
    std::uint64_t damaged = 0;
    CHECK(found(35, 55, &damaged) == expected(35, 55));
    CHECK(damaged == 0);
    (void)found({}, {}, &damaged);
    CHECK(damaged == 2);
  }
  SECTION("a clock that went backwards hides nothing") {
    begin_at(options.path, 4, 0);
    check_all();
    begin_at(options.path, 1, start + hours(60));
    check_all();
  }
}

TEST_CASE_METHOD(JournalFixture, "who looks by the index while it grows finds each entry once") {
  auto journal = open();
  REQUIRE(journal);
  for (int i = 0; i < 3; ++i) add(**journal, "x");
  auto reader = this->reader();
  RecordId last = 0;
  for (int i = 0; i < 3; ++i) last = add(**journal, "x");
  (*journal)->hurry_index();
  while ((*journal)->indexed() < last) std::this_thread::sleep_for(std::chrono::milliseconds(5));
  Filter filter;
  filter.sender = "sender@example.net";
  CHECK(reader->ids(filter)->size() == 6);
  std::vector<RecordId> backwards;
  REQUIRE(reader->each(filter, true, [&](const Entry& entry) { return backwards.push_back(entry.id), true; }));
  CHECK(backwards.size() == 6);
  CHECK(std::is_sorted(backwards.rbegin(), backwards.rend()));
}

TEST_CASE_METHOD(JournalFixture, "who looks for entries brings no content in from the disk") {
  {
    auto journal = open();
    REQUIRE(journal);
    for (int i = 0; i < 4; ++i) add(**journal, some_content(4'000'000));
  }
  std::filesystem::remove(options.path + "/catalog.lmdb");
  if (share_in_memory(segment_path(options.path, 1), true) > 0.05) return;  // a file system that is memory itself
  CHECK(reader()->ids({})->size() == 4);
  CHECK(share_in_memory(segment_path(options.path, 1), false) < 0.2);
}

TEST_CASE_METHOD(JournalFixture,
                 "a crash right after a segment was removed leaves nothing of it in the catalog, and its entries are counted no more") {
  Catalog::Removal removal{1, 0, 0, 5};
  {
    auto journal = open();
    REQUIRE(journal);
    for (int i = 0; i < 5; ++i) add(**journal, "x");
    end_segment(**journal);
    removal.first = 1;
    removal.end = add(**journal, "y");
  }
  {
    auto keys = KeyRing::open(options.path, options.key);
    auto catalog = Catalog::open(options.path, keys->base_key(), Environment::Mode::write);
    REQUIRE(catalog);
    REQUIRE((*catalog)->begin_removal(removal));
    REQUIRE((*catalog)->begin_removal({2, removal.end, removal.end + 100, 1}));  // one that was not carried out
  }
  std::filesystem::remove(segment_path(options.path, 1));
  {
    auto journal = open();
    REQUIRE(journal);
    REQUIRE((*journal)->erase({}, "", "", {}));  // as the daemon does at its start
    CHECK((*journal)->entries() == 1);
  }
  auto keys = KeyRing::open(options.path, options.key);
  auto catalog = Catalog::open(options.path, keys->base_key(), Environment::Mode::read);
  REQUIRE(catalog);
  CHECK(*(*catalog)->entries() == 1);
  CHECK((*catalog)->find(1, Term::sender, "sender@example.net", 0, false, 10)->empty());
  CHECK((*catalog)->find(2, Term::sender, "sender@example.net", 0, false, 10)->size() == 1);
  CHECK((*catalog)->removals()->size() == 1);
}

TEST_CASE_METHOD(JournalFixture,
                 "what retention takes away is counted no more; what was decided about a route stays, and a "
                 "lifted legal hold is in nobody's way") {
  auto write = [&](Journal& journal, RecordKind kind, std::string encoded) { REQUIRE(write_record(journal.writer(), kind, std::move(encoded))); };
  auto prune_all = [&](Journal& journal) { return journal.prune(now_us() + hours(1), "a test", "old"); };
  {
    auto journal = open();
    REQUIRE(journal);
    for (int i = 0; i < 5; ++i) add(**journal, some_content(50));
    write(**journal, RecordKind::state, encode(StateRecord{now_us(), "primary", 1, 1, "user ada", "ransomware"}));
    for (bool is_set : {true, false})
      write(**journal, RecordKind::legal_hold, encode(LegalHoldRecord{now_us(), is_set, "case 1", "user ada", "a suit", "", "", "", 0, 0, {}}));
    end_segment(**journal);
    add(**journal, "x");
    const std::int64_t before = (*journal)->oldest_us();
    CHECK((*journal)->entries() == 6);
    auto pruned = prune_all(**journal);
    REQUIRE(pruned);
    CHECK(pruned->segments == std::vector<std::uint32_t>{1});
    CHECK((*journal)->entries() == 1);
    CHECK((*journal)->oldest_us() > before);
    // Again, and by erasure.
    end_segment(**journal);
    RecordId last = add(**journal, "y");
    pruned = prune_all(**journal);
    REQUIRE(pruned);
    CHECK(pruned->segments == std::vector<std::uint32_t>{2});
    auto erased = (*journal)->erase({last}, "a test", "asked", {});
    UNSCOPED_INFO((erased ? "" : erased.error().message));
    REQUIRE(erased);
    CHECK((*journal)->entries() == 1);
  }
  {
    auto keys = KeyRing::open(options.path, options.key);
    REQUIRE(keys);
    auto catalog = Catalog::open(options.path, keys->base_key(), Environment::Mode::read);
    REQUIRE(catalog);
    for (std::uint32_t number : {1U, 2U}) CHECK((*catalog)->find(number, Term::sender, "sender@example.net", 0, false, 10)->empty());
    CHECK((*catalog)->legal_holds()->empty());
  }
  CHECK(verification().findings.empty());
  auto journal = open();
  REQUIRE(journal);
  CHECK((*journal)->entries() == 1);
  auto state = (*journal)->state_of("primary");
  REQUIRE(state);
  REQUIRE(*state);
  CHECK((**state).mode == 1);
  CHECK((**state).reason == "ransomware");
  CHECK(problems() == std::vector<std::string>());
}
