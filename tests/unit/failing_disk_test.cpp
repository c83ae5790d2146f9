// A disk that fails for a while: what was told to be written is there afterwards, and everything goes on without a restart.
#include <dlfcn.h>
#include <fcntl.h>
#include <sys/stat.h>

#include <atomic>
#include <cerrno>
#include <cstdarg>
#include <cstdio>
#include <string_view>

#include "tests/unit/journal_fixture.h"

using namespace holdfast;
using namespace holdfast::journal;

namespace {

/// What fails with EIO at this moment.
struct Failing {
  std::atomic<bool> first_pages{false}, opening{false}, folder_sync{false}, removing{false};
} failing;

bool is_store(std::string_view path) { return path.ends_with(".lmdb"); }

template <class Function>
Function* next(const char* name) {
  return reinterpret_cast<Function*>(::dlsym(RTLD_NEXT, name));
}

/// What became of the entry's recipient, once the catalog has heard of it.
std::string wait_for_reply(Journal& journal, RecordId id) {
  journal.hurry_index();
  for (int i = 0; i < 300; ++i) {
    auto entry = journal.settled_entry(id);
    if (entry && !entry->message.recipients[0].reply.starts_with("250 ok")) return entry->message.recipients[0].reply;
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  return "";
}

int refuse() {
  errno = EIO;
  return -1;
}

}  // namespace

// The calls of LMDB and of the journal come here first. They cannot have other names.
// NOLINTBEGIN
extern "C" {
ssize_t pwrite(int file, const void* bytes, std::size_t size, off_t at) {
  static auto* real = next<ssize_t(int, const void*, std::size_t, off_t)>("pwrite");
  return failing.first_pages && at < 8192 ? refuse() : real(file, bytes, size, at);
}
ssize_t pwrite64(int file, const void* bytes, std::size_t size, off64_t at) { return pwrite(file, bytes, size, at); }

int open(const char* path, int flags, ...) {
  static auto* real = next<int(const char*, int, mode_t)>("open");
  std::va_list arguments;
  va_start(arguments, flags);
  mode_t mode = flags & O_CREAT ? va_arg(arguments, mode_t) : 0;
  va_end(arguments);
  return failing.opening && is_store(path) ? refuse() : real(path, flags, mode);
}
int open64(const char* path, int flags, ...) {
  std::va_list arguments;
  va_start(arguments, flags);
  mode_t mode = flags & O_CREAT ? va_arg(arguments, mode_t) : 0;
  va_end(arguments);
  return open(path, flags, mode);
}

int fsync(int file) {
  static auto* real = next<int(int)>("fsync");
  struct stat info {};
  bool is_folder = ::fstat(file, &info) == 0 && S_ISDIR(info.st_mode);
  return failing.folder_sync && is_folder ? refuse() : real(file);
}

int remove(const char* path) noexcept {
  static auto* real = next<int(const char*)>("remove");
  return failing.removing && is_store(path) ? refuse() : real(path);
}
}
// NOLINTEND

TEST_CASE_METHOD(JournalFixture, "a journal whose first pages could not be written goes on when they can be again") {
  std::vector<std::pair<RecordId, std::string>> taken;
  auto journal = open();
  REQUIRE(journal);
  auto add_one = [&] {
    std::string content = some_content(5000 + 100 * taken.size());
    RecordId id = add(**journal, content);
    if (id > 0) taken.emplace_back(id, content);
    return id > 0;
  };
  REQUIRE(add_one());
  REQUIRE(add_one());
  failing.first_pages = true;
  CHECK_FALSE(add_one());
  SECTION("at once") {
    failing.first_pages = false;
    CHECK(add_one());
  }
  SECTION("after it could not even be opened") {
    failing.opening = true;
    for (int i = 0; i < 3; ++i) CHECK_FALSE(add_one());
    CHECK_FALSE((*journal)->entry(taken[0].first));  // nothing to read from either, and no crash
    failing.opening = failing.first_pages = false;
    CHECK((*journal)->entry(taken[0].first));
    CHECK(add_one());
  }
  SECTION("after it was stopped while it could not be opened") {
    failing.opening = true;
    for (int i = 0; i < 3; ++i) CHECK_FALSE(add_one());
    journal->reset();
    failing.opening = failing.first_pages = false;
    journal = open();
    REQUIRE(journal);
    CHECK(add_one());
  }
  // The catalog, which had the same trouble, has all of it too.
  (*journal)->hurry_index();
  for (int i = 0; i < 300 && (*journal)->indexed() < taken.back().first; ++i) std::this_thread::sleep_for(std::chrono::milliseconds(10));
  CHECK((*journal)->indexed() >= taken.back().first);
  journal->reset();
  CHECK(verification().findings.empty());
  for (const auto& [id, content] : taken) CHECK(content_of(*reader(), id) == content);
}

TEST_CASE_METHOD(JournalFixture, "a segment that could not be begun leaves nothing that breaks the chain") {
  std::vector<RecordId> ids;
  std::atomic<bool> has_failed{false};
  auto journal = Journal::open(
      options, [&](bool, const std::string& what) { has_failed = has_failed || what.find("cannot begin a new segment") != std::string::npos; });
  REQUIRE(journal);
  ids.push_back(add(**journal, some_content(1000)));
  bool is_taken_away = GENERATE(true, false);
  failing.folder_sync = true;
  failing.removing = !is_taken_away;
  (*journal)->seal();
  while (!has_failed) ids.push_back(add(**journal, some_content(1000)));
  failing.folder_sync = failing.removing = false;
  CHECK(list_segments(options.path)->size() == (is_taken_away ? 1 : 2));
  for (int i = 0; i < 3; ++i) ids.push_back(add(**journal, some_content(1000)));
  CHECK(std::count(ids.begin(), ids.end(), 0) == 0);
  journal->reset();
  journal = open();
  REQUIRE(journal);
  CHECK(list_segments(options.path)->size() == 1);
  ids.push_back(add(**journal, some_content(1000)));
  end_segment(**journal);
  ids.push_back(add(**journal, some_content(1000)));
  journal->reset();
  CHECK(verification().findings.empty());
  auto reader = this->reader();
  for (RecordId id : ids) CHECK(reader->entry(id));
}

TEST_CASE_METHOD(JournalFixture, "an outcome that could not be written until the stop is there after the next start") {
  RecordId id = 0;
  {
    auto journal = open();
    REQUIRE(journal);
    id = add(**journal, "x\r\n");
    REQUIRE(id > 0);
    failing.first_pages = true;
    (*journal)->writer().submit_record(RecordKind::outcome, encode(outcome_of(id, "250 at last")));
    (*journal)->finish_writing();
    failing.first_pages = false;
  }
  auto journal = open();
  REQUIRE(journal);
  auto entry = (*journal)->settled_entry(id);
  REQUIRE(entry);
  CHECK(entry->message.recipients[0].reply == "250 at last");
}

TEST_CASE_METHOD(JournalFixture, "what a killed process left on the notepad is not lost when the disk refuses at the next start") {
  options.lazy_delay = std::chrono::hours(1);
  pid_t child = ::fork();
  if (child == 0) {
    auto journal = open();
    if (journal) (*journal)->writer().submit_record(RecordKind::outcome, encode(outcome_of(add(**journal, "x\r\n"), "250 at last")));
    ::kill(::getpid(), SIGKILL);
  }
  int status = 0;
  REQUIRE(::waitpid(child, &status, 0) == child);
  REQUIRE(WIFSIGNALED(status));
  options.lazy_delay = std::chrono::milliseconds(1);
  failing.first_pages = true;
  auto journal = open();
  bool is_open_meanwhile = GENERATE(true, false);
  if (!is_open_meanwhile) journal = Error{ErrorCode::io, "it was killed"};
  failing.first_pages = false;
  if (!journal) journal = open();
  REQUIRE(journal);
  auto ids = (*journal)->messages_after(0, 2, [](const Error& damage) { FAIL(damage.message); });
  REQUIRE((ids && ids->size() == 1));
  CHECK(wait_for_reply(**journal, ids->front()) == "250 at last");
}
