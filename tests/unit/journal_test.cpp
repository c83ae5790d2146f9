#include <fcntl.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <atomic>
#include <fstream>
#include <future>
#include <thread>

#include "journal/head.h"
#include "journal/master_key.h"
#include "journal/rewrite.h"
#include "tests/unit/journal_fixture.h"

using namespace holdfast;
using namespace holdfast::journal;

TEST_CASE_METHOD(JournalFixture, "content of every size comes back bit for bit") {
  std::vector<std::pair<RecordId, std::string>> entries;
  {
    auto journal = open();
    REQUIRE(journal);
    for (std::size_t size : {std::size_t{0}, std::size_t{1}, cell_size - seal_overhead, cell_size - seal_overhead + 1, frame_plain_size - 1,
                             frame_plain_size, frame_plain_size + 1, 2 * frame_plain_size, std::size_t{3000000}}) {
      std::string content = some_content(size);
      entries.emplace_back(add(**journal, content), content);
    }
  }
  auto reader = this->reader();
  for (const auto& [id, content] : entries) CHECK(content_of(*reader, id) == content);
  Verification verified = verification();
  CHECK(verified.findings.empty());
  CHECK(verified.entries == entries.size());
}

TEST_CASE_METHOD(JournalFixture, "a message is committed at once, whatever rests in the open group and in the queue") {
  options.lazy_delay = std::chrono::hours(1);
  auto journal = open();
  REQUIRE(journal);
  Writer& writer = (*journal)->writer();
  auto ticket = std::make_shared<Ticket>(queue);
  Draft draft(writer, ticket);
  draft.append(some_content(3 * frame_plain_size));
  // The writer is given the time to store the frames and to rest again.
  std::this_thread::sleep_for(std::chrono::milliseconds(200));
  writer.submit_record(RecordKind::state, encode(StateRecord{}));
  MessageRecord record;
  draft.finish(record);
  for (int i = 0; i < 2000 && !ticket->is_settled(); ++i) std::this_thread::sleep_for(std::chrono::milliseconds(5));
  CHECK(ticket->is_committed());
}

TEST_CASE_METHOD(JournalFixture, "entries stay across restarts, and the chain goes on") {
  for (int round = 0; round < 3; ++round) {
    auto journal = open();
    REQUIRE(journal);
    CHECK((*journal)->entries() == static_cast<std::uint64_t>(round));
    REQUIRE(add(**journal, some_content(5000)) > 0);
  }
  Verification verified = verification();
  CHECK(verified.findings.empty());
  CHECK(verified.entries == 3);
}

TEST_CASE_METHOD(JournalFixture, "full segments are followed by new ones, and large content is whole in one") {
  options.segment_size = 1 << 20;
  std::vector<RecordId> ids;
  {
    auto journal = open();
    REQUIRE(journal);
    // One draft is fed slowly while others fill segments: its frames must move along.
    auto ticket = std::make_shared<Ticket>(queue);
    Draft slow((*journal)->writer(), ticket);
    std::string part = some_content(200000);
    for (int i = 0; i < 8; ++i) {
      slow.append(part);
      queue.wait_while_flooded(slow);
      ids.push_back(add(**journal, some_content(400000)));
    }
    MessageRecord record;
    record.recipients = {{"a@b", "", "250 ok", Outcome::pending}};
    slow.finish(record);
    queue.wait_for(*ticket);
    REQUIRE(ticket->is_committed());
    ids.push_back(ticket->id());
  }
  auto reader = this->reader();
  CHECK(reader->segments().size() > 2);
  for (RecordId id : ids) CHECK(content_of(*reader, id).size() >= 400000);
  Verification verified = verification();
  for (const Finding& finding : verified.findings) UNSCOPED_INFO(finding.what);
  CHECK(verified.findings.empty());
  CHECK(verified.entries == ids.size());
}

TEST_CASE_METHOD(JournalFixture, "a flipped bit in a segment is found, wherever it matters") {
  RecordId id = 0;
  {
    auto journal = open();
    REQUIRE(journal);
    for (int i = 0; i < 20; ++i) id = add(**journal, some_content(20000));
  }
  std::string path = segment_path(options.path, 1);
  std::uintmax_t size = std::filesystem::file_size(path);
  // Pages that are free hold nothing of the journal; all others must be missed.
  int found = 0, tried = 0;
  for (std::uintmax_t offset = 2 * 4096 + 100; offset < size; offset += 4096 * 3 + 17) {
    flip(path, offset);
    found += !verification().findings.empty();
    ++tried;
    flip(path, offset);
  }
  CHECK(found * 10 >= tried * 6);
  CHECK(verification().findings.empty());
  // In the middle of the content of an entry: it is named.
  auto reader = this->reader();
  auto entry = reader->entry(id);
  REQUIRE(entry);
}

TEST_CASE_METHOD(JournalFixture, "only one daemon writes a journal") {
  auto first = open();
  REQUIRE(first);
  auto second = open();
  REQUIRE_FALSE(second);
  CHECK(second.error().code == ErrorCode::busy);
  CHECK(second.error().message.find("already writes this journal") != std::string::npos);
}

TEST_CASE_METHOD(JournalFixture, "the key file is private, needed, and must be the right one") {
  {
    auto journal = open();
    REQUIRE(journal);
    REQUIRE(add(**journal, "x\r\n") > 0);
  }
  struct stat status;
  REQUIRE(::stat(options.key.file.c_str(), &status) == 0);
  CHECK((status.st_mode & 07777U) == 0600);
  std::string saved = options.key.file + ".saved";
  SECTION("lost") {
    std::filesystem::rename(options.key.file, saved);
    auto journal = open();
    REQUIRE_FALSE(journal);
    CHECK(journal.error().message.find("Restore it from your backup") != std::string::npos);
  }
  SECTION("another's") {
    std::filesystem::rename(options.key.file, saved);
    REQUIRE(create_key_file(options.key.file));
    auto journal = open();
    REQUIRE_FALSE(journal);
    CHECK(journal.error().code == ErrorCode::wrong_key);
  }
  SECTION("readable for others") {
    ::chmod(options.key.file.c_str(), 0644);
    auto journal = open();
    REQUIRE_FALSE(journal);
    CHECK(journal.error().message.find("chmod 600") != std::string::npos);
  }
  SECTION("no key at all") {
    std::ofstream(options.key.file) << "not a key\n";
    auto journal = open();
    REQUIRE_FALSE(journal);
    CHECK(journal.error().code == ErrorCode::corrupt);
  }
}

TEST_CASE_METHOD(JournalFixture, "who opened the key ring before a rekey of another process opens the segments after it") {
  REQUIRE(open());
  auto before = KeyRing::open(options.path, options.key), other = KeyRing::open(options.path, options.key);
  REQUIRE((before && other));
  for (int times = 0; times < 3; ++times) {
    REQUIRE(other->rekey(options.key, "", false));
    Key key = random_key();
    CHECK(before->unwrap(other->wrap(key, "here"), "here") == key);
    CHECK_FALSE(before->unwrap(other->wrap(key, "here"), "elsewhere"));
  }
}

TEST_CASE_METHOD(JournalFixture, "a damaged newest segment does not stop the mail, and verification names it") {
  {
    auto journal = open();
    REQUIRE(journal);
    REQUIRE(add(**journal, some_content(50000)) > 0);
  }
  SECTION("cut short") { std::filesystem::resize_file(segment_path(options.path, 1), 20000); }
  SECTION("overwritten") {
    std::fstream file(segment_path(options.path, 1), std::ios::in | std::ios::out | std::ios::binary);
    file << std::string(9000, 'x');
  }
  RecordId id = 0;
  {
    auto journal = open();
    REQUIRE(journal);
    CHECK(problems().size() >= 1);
    id = add(**journal, "after\r\n");
    REQUIRE(id > 0);
  }
  CHECK(content_of(*reader(), id) == "after\r\n");
  CHECK_FALSE(verification().findings.empty());
}

TEST_CASE_METHOD(JournalFixture, "a segment that is missing or belongs elsewhere is found") {
  options.segment_size = 1 << 20;
  {
    auto journal = open();
    REQUIRE(journal);
    for (int i = 0; i < 8; ++i) REQUIRE(add(**journal, some_content(500000)) > 0);
  }
  CHECK(verification().findings.empty());
  SECTION("missing") {
    std::filesystem::remove(segment_path(options.path, 2));
    Verification verified = verification();
    REQUIRE_FALSE(verified.findings.empty());
    CHECK(verified.findings[0].what == "the segment is missing");
    CHECK(verified.findings[0].segment == 2);
  }
  SECTION("swapped") {
    std::filesystem::copy_file(segment_path(options.path, 1), segment_path(options.path, 2), std::filesystem::copy_options::overwrite_existing);
    CHECK_FALSE(verification().findings.empty());
  }
}

TEST_CASE_METHOD(JournalFixture, "who has the keys and takes an entry away without saying so is found out") {
  RecordId gone = 0;
  {
    auto journal = open();
    REQUIRE(journal);
    for (int i = 0; i < 3; ++i) gone = add(**journal, some_content(100));
    end_segment(**journal);
    add(**journal, "x");
  }
  CHECK(verification().findings.empty());
  auto keys = KeyRing::open(options.path, options.key);
  REQUIRE(keys);
  {
    auto signing_key = SigningKey::open(options.path, keys->base_key());
    auto segment = Segment::open(options.path, 1, *keys, Environment::Mode::read);
    REQUIRE(segment);
    RewriteOptions without;
    without.erased = {gone};
    REQUIRE(rewrite_segment(options.path, **segment, *keys, *signing_key, without));
  }
  auto found = verification().findings;
  REQUIRE(found.size() == 1);
  CHECK((found[0].segment == 1 && found[0].record == gone));
  CHECK(found[0].what == "it was erased, but there is no erasure record of it");
}

TEST_CASE_METHOD(JournalFixture, "reading goes on while the writer writes") {
  auto journal = open();
  REQUIRE(journal);
  RecordId id = add(**journal, "first\r\n");
  // A reader is another process in life: LMDB wants a file opened only once in each.
  pid_t child = ::fork();
  if (child == 0) {
    auto reader = Reader::open(options.path, options.key);
    bool is_good = reader && content_of(**reader, id) == "first\r\n";
    ::_exit(is_good ? 0 : 1);
  }
  for (int i = 0; i < 20; ++i) CHECK(add(**journal, some_content(3000)) > 0);
  int status = 1;
  ::waitpid(child, &status, 0);
  CHECK(status == 0);
}

TEST_CASE_METHOD(JournalFixture, "many threads feed the writer at once") {
  auto journal = open();
  REQUIRE(journal);
  std::vector<std::thread> threads;
  std::atomic<int> committed{0};
  for (int t = 0; t < 4; ++t)
    threads.emplace_back([&] {
      for (int i = 0; i < 50; ++i) committed += add(**journal, some_content(static_cast<std::size_t>(100 + 7000 * (i % 20)))) > 0;
    });
  for (std::thread& thread : threads) thread.join();
  CHECK(committed == 200);
  CHECK((*journal)->entries() == 200);
}

TEST_CASE_METHOD(JournalFixture, "a segment gets its head before anything in it is erased, however busy the sealer is") {
  std::promise<void> goes_on;
  auto released = goes_on.get_future().share();
  options.witnesses.push_back({"witness", [released](const std::string&) -> Status {
                                 released.wait();
                                 return {};
                               }});
  std::vector<RecordId> ids;
  {
    auto journal = open();
    REQUIRE(journal);
    ids.push_back(add(**journal, some_content(1000)));
    (*journal)->seal();
    while (!std::filesystem::exists(head_path(options.path, 1))) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    // The sealer is at the publishing of the first head now, for long.
    for (int i = 0; i < 3; ++i) ids.push_back(add(**journal, some_content(2000)));
    auto erased = (*journal)->erase({ids[2]}, "test", "test", {});
    REQUIRE(erased);
    CHECK(erased->segments == 1);
    CHECK(std::filesystem::exists(head_path(options.path, 2)));
    ids.push_back(add(**journal, some_content(3000)));
    (*journal)->seal();
    goes_on.set_value();
    while (!std::filesystem::exists(head_path(options.path, 3))) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  CHECK(problems() == std::vector<std::string>());
  Verification verification = this->verification();
  for (const Finding& finding : verification.findings) UNSCOPED_INFO(finding.what);
  CHECK(verification.findings.empty());
  CHECK(verification.heads == 3);
  CHECK(verification.erased == 1);
}

TEST_CASE_METHOD(JournalFixture, "a segment that is being begun has one object in the process, the writer's") {
  REQUIRE(open());
  auto keys = KeyRing::open(options.path, options.key);
  REQUIRE(keys);
  Segments segments(options.path, *keys, {1});
  auto first = Segment::open(options.path, 1, *keys, Environment::Mode::write, Writer::map_size(options.segment_size));
  REQUIRE(first);
  segments.adopt(std::move(*first));
  SegmentHeader header;
  header.number = 2;
  header.first_cell = 1000;
  auto second = Segment::create(options.path, header, *keys, Writer::map_size(options.segment_size));
  REQUIRE(second);
  auto too_early = segments.get(2);
  REQUIRE_FALSE(too_early);
  CHECK(too_early.error().code == ErrorCode::not_found);
  CHECK(segments.holding(2000));
  Segment* own = second->get();
  segments.adopt(std::move(*second));
  auto there = segments.get(2);
  REQUIRE(there);
  CHECK(there->get() == own);
}

TEST_CASE_METHOD(JournalFixture, "an outcome that comes while its entry is erased does not have the newest segment rewritten under the writer") {
  std::vector<RecordId> kept;
  {
    auto journal = open();
    REQUIRE(journal);
    for (int round = 0; round < 2; ++round) {
      RecordId gone = add(**journal, some_content(1000));
      std::atomic<bool> is_over{false};
      std::thread outcomes([&] {
        while (!is_over) {
          OutcomeRecord outcome;
          outcome.time_us = now_us();
          outcome.entry = gone;
          outcome.changes.push_back({0, Outcome::held, "not yet"});
          (*journal)->writer().submit_urgent(RecordKind::outcome, encode(outcome), nullptr);
          std::this_thread::sleep_for(std::chrono::milliseconds(1));
        }
      });
      std::thread mail([&] {
        while (!is_over) kept.push_back(add(**journal, some_content(5000)));
      });
      auto erased = (*journal)->erase({gone}, "test", "test", {});
      is_over = true;
      outcomes.join();
      mail.join();
      REQUIRE(erased);
      kept.push_back(add(**journal, some_content(2000)));
    }
  }
  Verification verification = this->verification();
  for (const Finding& finding : verification.findings) UNSCOPED_INFO(finding.segment << " " << finding.what);
  CHECK(verification.findings.empty());
  auto reader = this->reader();
  std::size_t lost = 0;
  for (RecordId id : kept) lost += !reader->entry(id);
  CHECK(lost == 0);
}
