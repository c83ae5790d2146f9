#include "tests/unit/journal_fixture.h"

using namespace holdfast;
using namespace holdfast::journal;

namespace {

std::vector<RecordId> ids_of(Reader& reader, const Filter& filter, bool newest_first = false) {
  std::vector<RecordId> ids;
  Status read = reader.each(filter, newest_first, [&](const Entry& entry) {
    ids.push_back(entry.id);
    return true;
  });
  CHECK(read);
  return ids;
}

}  // namespace

TEST_CASE_METHOD(JournalFixture, "entries are found by recipient, sender and Message-ID, indexed or not") {
  std::vector<RecordId> ids;
  {
    auto journal = open();
    REQUIRE(journal);
    for (std::size_t size : {100, 200, 300}) ids.push_back(add(**journal, some_content(size)));
  }
  bool is_indexed = GENERATE(true, false);
  if (!is_indexed) std::filesystem::remove(Catalog::path_in(options.path));
  auto reader = this->reader();
  Filter filter;
  filter.recipient = "<someone@EXAMPLE.org>";
  CHECK(ids_of(*reader, filter) == ids);
  CHECK(ids_of(*reader, filter, true) == std::vector<RecordId>(ids.rbegin(), ids.rend()));
  filter.message_id = "<id-200@x>";
  CHECK(ids_of(*reader, filter) == std::vector<RecordId>{ids[1]});
  filter.recipient = "other@example.org";
  CHECK(ids_of(*reader, filter).empty());
  Filter by_outcome;
  by_outcome.outcome = Outcome::forwarded;
  CHECK(ids_of(*reader, by_outcome).empty());
}

TEST_CASE_METHOD(JournalFixture, "outcomes show in the entry; what a stop left open is abandoned at the next start") {
  RecordId settled = 0, open_one = 0;
  {
    auto journal = open();
    REQUIRE(journal);
    settled = add(**journal, "a\r\n");
    open_one = add(**journal, "b\r\n");
    OutcomeRecord outcome{now_us(), settled, false, {{OutcomeRecord::every_pending, Outcome::forwarded, "250 taken"}}};
    (*journal)->writer().submit_record(RecordKind::outcome, encode(outcome));
  }
  { REQUIRE(open()); }
  auto reader = this->reader();
  CHECK(reader->entry(settled)->message.recipients[0].outcome == Outcome::forwarded);
  CHECK(reader->entry(open_one)->message.recipients[0].outcome == Outcome::abandoned);
}

TEST_CASE_METHOD(JournalFixture, "the catalog is rebuilt from the segments, with or without a daemon") {
  auto journal = open();
  REQUIRE(journal);
  std::vector<RecordId> ids;
  for (std::size_t size : {100, 200}) ids.push_back(add(**journal, some_content(size)));
  journal->reset();
  std::filesystem::resize_file(Catalog::path_in(options.path), 100);
  auto rebuilt = rebuild_catalog(options.path, options.key, {}, [](const Error& damage) { FAIL(damage.message); });
  REQUIRE(rebuilt);
  CHECK(*rebuilt == 2);
  Filter filter;
  filter.sender = "sender@example.net";
  CHECK(ids_of(*reader(), filter) == ids);
}

TEST_CASE_METHOD(JournalFixture, "verification finds that the catalog knows fewer entries than the segments have, and a rebuild mends it") {
  Catalog::Removal removal{1, 1, 0, 3};
  {
    auto journal = open();
    REQUIRE(journal);
    for (int i = 0; i < 3; ++i) add(**journal, "x");
    end_segment(**journal);
    removal.end = add(**journal, "y");
  }
  auto keys = KeyRing::open(options.path, options.key);
  REQUIRE(keys);
  {
    auto catalog = Catalog::open(options.path, keys->base_key(), Environment::Mode::write);
    REQUIRE(catalog);
    REQUIRE((*catalog)->begin_removal(removal));
    while (*(*catalog)->forget_part(removal)) continue;
    REQUIRE((*catalog)->end_removal(removal));
  }
  auto found = verification().findings;
  REQUIRE(found.size() == 1);
  CHECK(found[0].what == "the catalog has 1 entries where the segments have 4; run: holdfast journal rebuild");
  REQUIRE(rebuild_catalog(options.path, options.key, {}, [](const Error& damage) { FAIL(damage.message); }));
  CHECK(verification().findings.empty());
}
