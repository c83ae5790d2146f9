// Readers, verify and backup beside what changes the journal meanwhile: mail, sealing, erasure, retention.
#include <fstream>
#include <future>

#include "journal/backup.h"
#include "journal/head.h"
#include "journal/manifest.h"
#include "tests/unit/journal_fixture.h"

using namespace holdfast;
using namespace holdfast::journal;

TEST_CASE_METHOD(JournalFixture, "retention takes segments that are damaged too, and tells of all that the catalog knows of them") {
  std::vector<RecordId> ids, forgotten;
  {
    auto journal = open();
    REQUIRE(journal);
    for (int i = 0; i < 5; ++i) {
      ids.push_back(add(**journal, some_content(1000)));
      end_segment(**journal);
    }
  }
  std::filesystem::resize_file(segment_path(options.path, 1), 5000);
  const std::string other_name = folder.path + "/other-name";
  std::filesystem::create_hard_link(segment_path(options.path, 1), other_name);
  std::filesystem::resize_file(segment_path(options.path, 3), 5000);
  std::filesystem::resize_file(segment_path(options.path, 4), 5000);
  {
    auto journal = open();
    REQUIRE(journal);
    CHECK((*journal)->entries() == 5);
    (*journal)->on_erase([&](const std::vector<RecordId>& gone) {
      forgotten.insert(forgotten.end(), gone.begin(), gone.end());
      return Status();
    });
    auto pruned = (*journal)->prune(now_us(), "test", "test");
    REQUIRE(pruned);
    CHECK(pruned->segments == std::vector<std::uint32_t>{1, 2, 3, 4, 5});
    CHECK(forgotten == ids);
    // Where its key stood nobody could say: nothing of it is left on the disk.
    std::ifstream left(other_name, std::ios::binary);
    CHECK(std::string(std::istreambuf_iterator<char>(left), {}) == std::string(5000, '\0'));
    CHECK((*journal)->entries() == 0);
  }
  CHECK(verification().findings.empty());
}

TEST_CASE_METHOD(JournalFixture, "retention takes no mail that is younger than it, whatever the clock said when its segment ended") {
  auto journal = open();
  REQUIRE(journal);
  const std::int64_t later = now_us() + 300'000;
  REQUIRE(add(**journal, "x", 60000, later) > 0);  // by a clock that was set back before the next segment was begun
  end_segment(**journal);
  while (now_us() <= later) std::this_thread::sleep_for(std::chrono::milliseconds(5));
  auto pruned = (*journal)->prune(later, "test", "test");
  REQUIRE(pruned);
  CHECK(pruned->segments.empty());
  pruned = (*journal)->prune(now_us(), "test", "test");
  REQUIRE(pruned);
  CHECK(pruned->segments == std::vector<std::uint32_t>{1});
}

TEST_CASE_METHOD(JournalFixture,
                 "behind a segment that stays, a damaged one stays too, and one that is whole loses its mail, which takes nothing else's place") {
  RecordId young = 0, gone = 0, newest = 0;
  std::int64_t later = 0;
  // All must be written before the time that the young one has.
  for (std::int64_t ahead_us = 300'000; now_us() >= later; ahead_us *= 2) {
    std::filesystem::remove_all(options.path);
    later = now_us() + ahead_us;
    auto journal = open();
    REQUIRE(journal);
    young = add(**journal, "x", 60000, later);
    end_segment(**journal);
    add(**journal, some_content(100));
    end_segment(**journal);
    gone = add(**journal, some_content(100));
    end_segment(**journal);
    newest = add(**journal, some_content(100));
  }
  std::filesystem::resize_file(segment_path(options.path, 2), 5000);
  while (now_us() <= later) std::this_thread::sleep_for(std::chrono::milliseconds(5));
  {
    std::vector<RecordId> forgotten;
    auto journal = open();
    REQUIRE(journal);
    (*journal)->on_erase([&](const std::vector<RecordId>& some) {
      forgotten.insert(forgotten.end(), some.begin(), some.end());
      return Status();
    });
    for (bool is_first : {true, false}) {
      auto pruned = (*journal)->prune(later, "test", "test");
      UNSCOPED_INFO((pruned ? "" : pruned.error().message));
      REQUIRE(pruned);
      CHECK(pruned->segments.empty());
      CHECK(pruned->emptied == (is_first ? std::vector<std::uint32_t>{3} : std::vector<std::uint32_t>{}));
      CHECK(pruned->stays ==
            "segment 1 stays: there are entries in it that are not that old: the clock was wrong when it ended; in all, 2 segments stay");
      CHECK(forgotten == std::vector<RecordId>{gone});
    }
  }
  auto reader = Reader::open(options.path, options.key);
  REQUIRE(reader);
  CHECK((*reader)->entry(young));
  CHECK((*reader)->entry(newest));
  CHECK((*reader)->entry(gone).error().message.find("was erased") != std::string::npos);
  for (const Finding& finding : verification().findings) CHECK(finding.segment == 2);
  // The record of it is none of a segment that was taken away.
  for (std::uint32_t number : {1, 2, 3}) std::filesystem::remove(segment_path(options.path, number));
  REQUIRE(verification().findings.size() == 1);
  CHECK(verification().findings[0].what == "the segment and all before it are missing, and there is no record that they were pruned");
}

TEST_CASE_METHOD(JournalFixture, "who reads a segment at the moment in which it is rewritten gets the one before or the one after") {
  std::vector<RecordId> ids;
  {
    auto journal = open();
    REQUIRE(journal);
    for (int i = 0; i < 4; ++i) ids.push_back(add(**journal, some_content(100)));
    end_segment(**journal);
  }
  SECTION("a reader") {
    OtherProcesses readers(8, [&]() -> Status {
      auto keys = KeyRing::open(options.path, options.key);
      if (!keys) return keys.error();
      auto segment = Segment::open(options.path, 1, *keys, Environment::Mode::read);
      return segment ? Status() : segment.error();
    });
    auto journal = open();
    REQUIRE(journal);
    for (RecordId id : ids) CHECK((*journal)->erase({id}, "test", "test", {}));
    CHECK(readers.stop() == "");
  }
  SECTION("a backup") {
    int number = 0;
    OtherProcesses backups(4, [&]() -> Status {
      std::string copy = fmt::format("{}/backup.{}.{}", folder.path, ::getpid(), ++number);
      auto backed_up = back_up(options.path, copy, {});
      if (!backed_up) return backed_up.error();
      std::filesystem::remove_all(copy);
      return {};
    });
    auto journal = open();
    REQUIRE(journal);
    for (RecordId id : ids) CHECK((*journal)->erase({id}, "test", "test", {}));
    CHECK(backups.stop() == "");
  }
}

TEST_CASE_METHOD(JournalFixture, "a segment gets its head before retention takes it away, and who reads meanwhile passes over it") {
  std::promise<void> goes_on;
  auto released = goes_on.get_future().share();
  options.witnesses.push_back({"witness", [released](const std::string&) -> Status {
                                 released.wait();
                                 return {};
                               }});
  auto journal = open();
  REQUIRE(journal);
  std::vector<RecordId> ids;
  for (int i = 0; i < 3; ++i) {
    ids.push_back(add(**journal, some_content(1000)));
    end_segment(**journal);
  }
  while (!std::filesystem::exists(head_path(options.path, 1))) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  ids.push_back(add(**journal, some_content(1000)));
  REQUIRE((*journal)->prune(0, "test", "nothing is so old: the catalog catches up"));
  auto reader = Reader::open(options.path, options.key);
  REQUIRE(reader);
  auto pruned = (*journal)->prune(now_us(), "test", "test");
  bool has_heads = true;
  for (std::uint32_t number : {1, 2, 3}) has_heads &= std::filesystem::exists(head_path(options.path, number));
  goes_on.set_value();
  CHECK(has_heads);
  REQUIRE(pruned);
  CHECK(pruned->segments == std::vector<std::uint32_t>{1, 2, 3});
  std::vector<RecordId> read;
  CHECK((*reader)->each({}, false, [&](const Entry& entry) { return read.push_back(entry.id), true; }));
  CHECK(read == std::vector<RecordId>{ids.back()});
  auto gone = (*reader)->entry(ids[0]);
  REQUIRE_FALSE(gone);
  CHECK(gone.error().code == ErrorCode::not_found);
  CHECK((*reader)->damaged() == 0);
}

TEST_CASE_METHOD(JournalFixture, "retention that comes while a journal is verified or backed up spoils neither") {
  auto journal = open();
  REQUIRE(journal);
  for (int i = 0; i < 4; ++i) {
    add(**journal, some_content(1000));
    end_segment(**journal);
  }
  add(**journal, some_content(1000));
  bool is_pruned = false;
  auto prune = [&] {
    if (std::exchange(is_pruned, true)) return;
    CHECK((*journal)->prune(now_us(), "test", "test"));
  };
  bool has_grown = false;
  auto grow = [&] {
    if (std::exchange(has_grown, true)) return;
    end_segment(**journal);
    add(**journal, some_content(1000));
  };
  auto findings_of = [&](const std::function<void(const VerifyProgress&)>& meanwhile) {
    VerifyOptions verifying;
    verifying.key = options.key;
    auto verified = verify(options.path, verifying, meanwhile);
    REQUIRE(verified);
    std::vector<std::string> found;
    for (const Finding& finding : verified->findings) found.push_back(finding.what);
    return found;
  };
  const std::vector<std::string> none, missing{"the segment and all before it are missing, and there is no record that they were pruned"};
  SECTION("verify") {
    CHECK(findings_of([&](const VerifyProgress&) { prune(); }) == none);
  }
  SECTION("verify, and the record of it stands in a segment that was begun since") {
    CHECK(findings_of([&](const VerifyProgress&) { grow(), prune(); }) == none);
  }
  SECTION("verify, and every segment that it knew goes") {
    CHECK(findings_of([&](const VerifyProgress& progress) {
            if (progress.bytes_done == progress.bytes_total) grow(), prune();
          }) == none);
  }
  SECTION("a segment that went without a record is missing, also when it goes meanwhile") {
    bool others_are_begun = GENERATE(false, true);
    auto remove_some = [&](const VerifyProgress&) {
      for (std::uint32_t number : {1, 2}) std::filesystem::remove(segment_path(options.path, number));
      if (others_are_begun) grow();
    };
    CHECK(findings_of(remove_some) == missing);
  }
  SECTION("backup") {
    std::string copy = folder.path + "/backup";
    auto backed_up = back_up(options.path, copy, [&](double) { prune(); });
    REQUIRE(backed_up);
    CHECK(backed_up->copied == 2);
    auto there = list_segments(copy);
    REQUIRE(there);
    CHECK(*there == std::vector<std::uint32_t>{5});
  }
}

TEST_CASE_METHOD(JournalFixture, "a catalog that is built anew while segments are begun has all that is in them") {
  {
    auto journal = open();
    REQUIRE(journal);
    add(**journal, some_content(1000));
  }
  int start[2], done[2];
  REQUIRE(::pipe(start) == 0);
  REQUIRE(::pipe(done) == 0);
  OtherProcesses rebuilding(1, [&]() -> Status {
    char byte;
    if (::read(start[0], &byte, 1) != 1) return Error{ErrorCode::io, "the pipe"};
    auto rebuilt = rebuild_catalog(options.path, options.key, {}, {});
    if (!rebuilt) return rebuilt.error();
    if (::write(done[1], &byte, 1) != 1) return Error{ErrorCode::io, "the pipe"};
    return {};
  });
  auto journal = open();
  REQUIRE(journal);
  auto is_indexed = [&](RecordId id) {
    (*journal)->hurry_index();
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
    return (*journal)->indexed() >= id;
  };
  for (int i = 0; i < 40; ++i) {
    char byte = 'x';
    REQUIRE(::write(start[1], &byte, 1) == 1);
    std::this_thread::sleep_for(std::chrono::microseconds(100 * i));
    rebuilding.signal(SIGSTOP);
    add(**journal, some_content(1000));
    end_segment(**journal);
    RecordId last = add(**journal, some_content(1000));
    // It cannot learn of them while the other is in the middle of it.
    for (int tries = 0; tries < 20 && !is_indexed(last); ++tries) continue;
    rebuilding.signal(SIGCONT);
    REQUIRE(::read(done[0], &byte, 1) == 1);
    for (int tries = 0; tries < 1000 && !is_indexed(last); ++tries) continue;
    auto known = (*journal)->find_after(Term::recipient, "someone@example.org", 0, 1000);
    REQUIRE(known);
    CHECK(known->size() == (*journal)->entries());
  }
  CHECK(rebuilding.stop() == "");
}

/// The backup, put back with the key, must verify.
struct BackupFixture : JournalFixture {
  std::string copy = folder.path + "/backup";

  std::vector<std::string> findings_when_put_back() {
    MasterKeySource key;
    key.file = copy + "/master.key";
    std::filesystem::copy_file(options.key.file, key.file);
    REQUIRE(rebuild_catalog(copy, key, {}, {}));
    VerifyOptions verifying;
    verifying.key = key;
    auto verified = verify(copy, verifying, {});
    REQUIRE(verified);
    std::vector<std::string> found;
    for (const Finding& finding : verified->findings) found.push_back(finding.what);
    return found;
  }
};

TEST_CASE_METHOD(BackupFixture, "segments that are sealed after they were copied have no head in the backup") {
  std::promise<void> goes_on;
  options.witnesses.push_back({"witness", [released = goes_on.get_future().share()](const std::string&) -> Status {
                                 released.wait();
                                 return {};
                               }});
  auto journal = open();
  REQUIRE(journal);
  for (int i = 0; i < 4; ++i) {
    add(**journal, some_content(1000));
    end_segment(**journal);
    while (i == 0 && !std::filesystem::exists(head_path(options.path, 1))) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  // The sealer is at the publishing of the first head.
  int copied = 0;
  auto backed_up = back_up(options.path, copy, [&](double) {
    if (++copied != 3) return;
    goes_on.set_value();
    while (!std::filesystem::exists(head_path(options.path, 4))) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  });
  if (copied < 3) goes_on.set_value();
  REQUIRE(backed_up);
  CHECK(findings_when_put_back() == std::vector<std::string>());
  CHECK(list_heads(copy) == std::vector<std::uint32_t>{1});
  CHECK(back_up(options.path, copy, {}));
  CHECK(list_heads(copy) == std::vector<std::uint32_t>{1, 2, 3, 4});
}

TEST_CASE_METHOD(BackupFixture, "what is erased while a backup is made has its erasure record in the backup") {
  auto journal = open();
  REQUIRE(journal);
  for (int i = 0; i < 3; ++i) {
    add(**journal, some_content(1000));
    end_segment(**journal);
  }
  RecordId last = add(**journal, some_content(1000));
  bool is_erased = false;
  auto backed_up = back_up(options.path, copy, [&](double) {
    if (!std::exchange(is_erased, true)) CHECK((*journal)->erase({last}, "test", "test", {}));
  });
  REQUIRE(backed_up);
  CHECK(backed_up->copied == 5);
  CHECK(findings_when_put_back() == std::vector<std::string>());
}

TEST_CASE_METHOD(BackupFixture, "a segment whose file was replaced, and whose manifest was not yet, is copied with the one that fits") {
  {
    auto journal = open();
    REQUIRE(journal);
    add(**journal, some_content(1000));
    end_segment(**journal);
    add(**journal, some_content(1000));
    while (!std::filesystem::exists(head_path(options.path, 1))) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  // As a crash between the two steps leaves it.
  std::filesystem::rename(manifest_path(options.path, 1), next_manifest_path(options.path, 1));
  std::filesystem::copy_file(manifest_path(options.path, 1) + ".next", manifest_path(options.path, 1));
  flip(manifest_path(options.path, 1), 60);
  auto backed_up = back_up(options.path, copy, {});
  REQUIRE(backed_up);
  CHECK(findings_when_put_back() == std::vector<std::string>());
}

TEST_CASE_METHOD(JournalFixture, "a new segment gets its head at once, also while many old ones wait to be compacted") {
  constexpr std::uint32_t many = 30;
  {
    auto journal = open();
    REQUIRE(journal);
    for (std::uint32_t i = 0; i < many; ++i) {
      add(**journal, some_content(300'000));
      end_segment(**journal);
    }
    while (list_heads(options.path).size() < many) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  options.compacts = true;
  std::atomic<std::uint32_t> compacted{0};
  auto journal = Journal::open(options, [&](bool, const std::string& what) { compacted += what.starts_with("compacted"); });
  REQUIRE(journal);
  while (compacted == 0) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  add(**journal, "x");
  std::uint32_t number = (*journal)->seal();
  while (!std::filesystem::exists(head_path(options.path, number))) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  CHECK(compacted < many);
  // The others follow.
  while (compacted < many + 1) std::this_thread::sleep_for(std::chrono::milliseconds(1));
}

TEST_CASE_METHOD(JournalFixture, "a legal hold that comes while an erasure is decided is on record behind it, or forbids it") {
  auto journal = open();
  REQUIRE(journal);
  const RecordId id = add(**journal, some_content(100));
  const LegalHoldRecord hold{now_us(), true, "case 1", "user ada", "a suit", "", "", "", 0, 0, {id}};
  std::future<Result<RecordId>> set;
  auto release = [&]() -> Status {
    set = std::async(std::launch::async, [&] { return (*journal)->record_legal_hold(hold); });
    set.wait_for(std::chrono::milliseconds(100));  // it would be on record by then if nothing kept it
    return {};
  };
  auto erased = (*journal)->erase({id}, "a test", "asked", {}, release);
  REQUIRE(erased);
  auto recorded = set.get();
  REQUIRE(recorded);
  CHECK(*recorded > erased->record);
  CHECK((*journal)->record_legal_hold(hold).error().code == ErrorCode::busy);
  LegalHoldRecord lift = hold;
  lift.is_set = false;
  CHECK((*journal)->record_legal_hold(lift));
  CHECK((*journal)->record_legal_hold(lift).error().code == ErrorCode::busy);
}

TEST_CASE_METHOD(JournalFixture, "retention takes nothing that was under a legal hold when it was put on record") {
  auto journal = open();
  REQUIRE(journal);
  constexpr int segments = 20;
  std::vector<RecordId> ids;
  for (int i = 0; i < segments; ++i) {
    ids.push_back(add(**journal, some_content(100)));
    end_segment(**journal);
  }
  std::map<RecordId, RecordId> holds;  // by what is held
  auto pruning = std::async(std::launch::async, [&] { return (*journal)->prune(now_us(), "test", "test"); });
  for (int i = segments - 1; i >= 0; i -= 4) {
    auto set = (*journal)->record_legal_hold({now_us(), true, fmt::format("case {}", i), "user ada", "a suit", "", "", "", 0, 0, {ids[i]}});
    REQUIRE(set);
    holds[ids[i]] = *set;
  }
  auto pruned = pruning.get();
  REQUIRE(pruned);
  auto reader = Reader::open(options.path, options.key);
  REQUIRE(reader);
  std::map<std::uint32_t, RecordId> gone;  // the records of it, by segment
  CHECK((*reader)->each_record(RecordKind::erasure, {}, [&](const Segment::StoredRecord& record) {
    auto erasure = decode_erasure(record.encoded);
    REQUIRE(erasure);
    auto segment = pruned_segment(*erasure);
    if (!segment) segment = emptied_segment(*erasure);
    REQUIRE(segment);
    gone[*segment] = record.id;
  }));
  for (int i = 0; i < segments; ++i) {
    auto held = holds.find(ids[i]);
    bool was_taken = gone.count(i + 1) > 0;
    INFO("segment " << i + 1);
    if (held != holds.end() && was_taken) CHECK(held->second > gone[i + 1]);
    CHECK((*reader)->entry(ids[i]).operator bool() != was_taken);
  }
}
