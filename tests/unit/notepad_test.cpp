// What a killed process leaves: outcomes that it had not committed yet are in the log after the next start, once.
#include "journal/notepad.h"

#include <sys/mman.h>

#include "journal/key_ring.h"
#include "tests/unit/journal_fixture.h"

using namespace holdfast;
using namespace holdfast::journal;

namespace {

struct NotepadFixture : JournalFixture {
  /// Works on the journal in a process of its own, which is killed then.
  void work_until_killed(const std::function<void(Journal&)>& work) {
    pid_t child = ::fork();
    if (child == 0) {
      auto journal = open();
      if (journal) work(**journal);
      ::kill(::getpid(), SIGKILL);
    }
    int status = 0;
    REQUIRE(::waitpid(child, &status, 0) == child);
    REQUIRE(WIFSIGNALED(status));
  }
  std::string path() const {
    auto keys = KeyRing::open(options.path, options.key);
    REQUIRE(keys);
    return Notepad::path_of(options.path, keys->base_key());
  }
  void leave_uncommitted(Journal& journal, RecordId entry, const std::string& reply) const {
    journal.writer().submit_record(RecordKind::outcome, encode(outcome_of(entry, reply)));
  }
  /// The reply of each entry's recipient, after a new start.
  std::vector<std::string> replies() {
    auto journal = open();
    REQUIRE(journal);
    std::vector<std::string> all;
    auto ids = (*journal)->messages_after(0, 100, [](const Error& damage) { FAIL(damage.message); });
    REQUIRE(ids);
    for (RecordId id : *ids) {
      auto entry = (*journal)->settled_entry(id);
      REQUIRE(entry);
      const std::string& reply = entry->message.recipients[0].reply;
      // That is noted when the start is over.
      all.push_back(reply == stopped_before_answer ? unknown : reply);
    }
    last = (*journal)->writer().state().last_id;
    return all;
  }
  RecordId last = 0;                     ///< of the log, when replies() began
  const std::string unknown = "250 ok";  ///< as add() has it

  NotepadFixture() { options.lazy_delay = std::chrono::hours(1); }
};

std::string bytes_of(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

void put(const std::string& path, const std::string& bytes) { std::ofstream(path, std::ios::binary) << bytes; }

}  // namespace

TEST_CASE_METHOD(NotepadFixture, "outcomes that were not committed when Holdfast was killed are in the log after the next start, once") {
  work_until_killed([&](Journal& journal) {
    leave_uncommitted(journal, add(journal, "one\r\n"), "250 one");
    leave_uncommitted(journal, add(journal, some_content(200000)), "250 two");  // its commit takes the one before along
    leave_uncommitted(journal, 2, "250 one, later");
  });
  CHECK(std::filesystem::exists(path()));
  CHECK(replies() == std::vector<std::string>{"250 one, later", "250 two"});
  const RecordId then = last;
  CHECK_FALSE(std::filesystem::exists(path()));
  CHECK(replies() == std::vector<std::string>{"250 one, later", "250 two"});
  CHECK(last == then);
  CHECK(verification().findings.empty());
  CHECK(problems().empty());
}

TEST_CASE_METHOD(NotepadFixture, "outcomes that were not committed are there also when a segment had just begun") {
  work_until_killed([&](Journal& journal) {
    RecordId one = add(journal, "one\r\n"), two = add(journal, some_content(200000));
    leave_uncommitted(journal, one, "250 one");
    const auto segment_before = journal.writer().current_key();
    journal.seal();
    while (journal.writer().current_key() == segment_before) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    leave_uncommitted(journal, two, "250 two");
  });
  CHECK(replies() == std::vector<std::string>{"250 one", "250 two"});
  CHECK(verification().findings.empty());
  CHECK(problems().empty());
}

TEST_CASE_METHOD(NotepadFixture,
                 "an outcome that was noted while a segment was being begun is there too: it is sealed with the key of the one before") {
  RecordId one = 0;
  std::shared_ptr<const Writer::SegmentKey> key;
  {
    auto journal = open();
    REQUIRE(journal);
    one = add(**journal, "one\r\n");
    key = (*journal)->writer().current_key();
    end_segment(**journal);
  }
  auto keys = KeyRing::open(options.path, options.key);
  REQUIRE(keys);
  {
    auto second = Segment::open(options.path, 2, *keys, Environment::Mode::read);
    auto notepad = Notepad::open(options.path, keys->base_key());
    REQUIRE((second && notepad));
    const SegmentHeader& header = (*second)->header();
    (*notepad)->add(1, {header.first_cell, header.previous_link}, seal_record(key->key, RecordKind::outcome, encode(outcome_of(one, "250 one"))));
  }
  CHECK(replies() == std::vector<std::string>{"250 one"});
}

TEST_CASE_METHOD(NotepadFixture, "what is noted and in the log too is not written twice") {
  options.lazy_delay = std::chrono::milliseconds(1);
  work_until_killed([&](Journal& journal) {
    RecordId id = add(journal, "one\r\n");
    leave_uncommitted(journal, id, "250 one");
    std::filesystem::copy_file(path(), folder.path + "/noted");
    while (journal.writer().state().last_id == id) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    journal.seal();
    while (journal.writer().state().segment == 1) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  });
  put(path(), bytes_of(folder.path + "/noted"));
  CHECK(replies() == std::vector<std::string>{"250 one"});
  const RecordId then = last;
  CHECK(replies() == std::vector<std::string>{"250 one"});
  CHECK(last == then);
  CHECK(then == 3);
}

TEST_CASE_METHOD(NotepadFixture, "notes of another log are left out: numbers mean something else there") {
  work_until_killed([&](Journal& journal) { add(journal, "one\r\n"); });
  CHECK(replies() == std::vector<std::string>{unknown});
  const std::string backup = folder.path + "/backup";
  std::filesystem::copy(options.path, backup, std::filesystem::copy_options::recursive);
  RecordId* shared = static_cast<RecordId*>(::mmap(nullptr, sizeof(RecordId), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
  work_until_killed([&](Journal& journal) {
    *shared = add(journal, "two\r\n");
    leave_uncommitted(journal, *shared, "250 two");
  });
  const std::string notes = bytes_of(path());
  for (const auto& one : std::filesystem::directory_iterator(options.path)) std::filesystem::remove_all(one);
  std::filesystem::copy(backup, options.path, std::filesystem::copy_options::recursive);
  work_until_killed([&](Journal& journal) { *shared -= add(journal, "two and a half\r\n"); });
  CHECK(*shared == 0);
  ::munmap(shared, sizeof(RecordId));
  put(path(), notes);
  CHECK(replies() == std::vector<std::string>(2, unknown));
}

TEST_CASE_METHOD(NotepadFixture, "a notepad with nonsense on it does no harm, and without one all works") {
  work_until_killed([&](Journal& journal) { leave_uncommitted(journal, add(journal, "one\r\n"), "250 one"); });
  const std::string notes = bytes_of(path());
  SECTION("nonsense") {
    std::size_t place = GENERATE(8, 12, 16, 24, 60, 96, 140);
    std::string damaged = notes;
    damaged[place] = static_cast<char>(damaged[place] ^ 0x10);
    put(path(), GENERATE(false, true) ? damaged : std::string(notes.size(), '\xff'));
    auto found = replies();
    CHECK((found[0] == "250 one" || found[0] == unknown));
  }
  SECTION("too short") {
    put(path(), notes.substr(0, 100));
    CHECK(replies().size() == 1);
  }
  SECTION("a link") {
    put(folder.path + "/notes", notes);
    std::filesystem::remove(path());
    std::filesystem::create_symlink(folder.path + "/notes", path());
    CHECK(replies() == std::vector<std::string>{unknown});
    CHECK(bytes_of(folder.path + "/notes") == notes);
  }
  SECTION("one that others can write") {
    std::filesystem::permissions(path(), std::filesystem::perms::all);
    CHECK(replies() == std::vector<std::string>{unknown});
  }
  std::filesystem::remove(path());
  CHECK(verification().findings.empty());
  CHECK(problems().empty());
}

TEST_CASE_METHOD(NotepadFixture,
                 "held entries that were sent and not answered for when Holdfast was killed are marked as possible duplicates, once") {
  auto held = [&](Journal& journal, const std::string& content) {
    RecordId id = add(journal, content);
    OutcomeRecord outcome = outcome_of(id, "held");
    outcome.changes[0].outcome = Outcome::held;
    journal.writer().submit_record(RecordKind::outcome, encode(outcome));
    return *journal.entry(id);
  };
  auto marked = [&] {
    auto reader = Reader::open(options.path, options.key);
    REQUIRE(reader);
    std::vector<RecordId> all;
    Status read = (*reader)->each({}, false, [&](const Entry& entry) {
      if (entry.is_possible_duplicate) all.push_back(entry.id);
      return true;
    });
    REQUIRE(read);
    return all;
  };
  RecordId* sent = static_cast<RecordId*>(::mmap(nullptr, 4 * sizeof(RecordId), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
  work_until_killed([&](Journal& journal) {
    const char* contents[] = {"not answered\r\n", "answered\r\n", "delivered\r\n", "another log's\r\n"};
    for (int i = 0; i < 4; ++i) {
      Entry entry = held(journal, contents[i]);
      sent[i] = entry.id;
      if (i == 3) entry.message.content_id[0] ^= 1;
      journal.is_sent(entry);
    }
    journal.is_answered(sent[1]);
    journal.writer().submit_record(RecordKind::outcome, encode(outcome_of(sent[2], "250 taken")));
  });
  CHECK(open());
  CHECK(marked() == std::vector<RecordId>{sent[0]});
  CHECK_FALSE(std::filesystem::exists(path()));
  CHECK(open());
  CHECK(marked() == std::vector<RecordId>{sent[0]});
  {
    auto journal = open();  // it ends well, and before the answer
    (*journal)->is_sent(*(*journal)->entry(sent[3]));
  }
  CHECK(std::filesystem::exists(path()));
  CHECK(open());
  CHECK(marked() == std::vector<RecordId>{sent[0], sent[3]});
  CHECK_FALSE(std::filesystem::exists(path()));
  ::munmap(sent, 4 * sizeof(RecordId));
  CHECK(verification().findings.empty());
  CHECK(problems().empty());
}
