// What the writer tells those who wait for it, and what it keeps of what it could not write.
#include "tests/unit/journal_fixture.h"

using namespace holdfast;
using namespace holdfast::journal;

namespace {

std::string note(const std::string& reason) { return encode(AccessRecord{now_us(), "test", "test", reason, 0, {}}); }

}  // namespace

TEST_CASE_METHOD(JournalFixture, "who sees that his record is committed finds it in the writer's state") {
  auto journal = open();
  REQUIRE(journal);
  Writer& writer = (*journal)->writer();
  for (int i = 0; i < 300; ++i) {
    auto ticket = std::make_shared<Ticket>(queue);
    writer.submit_urgent(RecordKind::access, note("x"), ticket);
    while (!ticket->is_settled()) std::this_thread::yield();
    REQUIRE(writer.state().last_id >= ticket->id());
  }
}

TEST_CASE_METHOD(JournalFixture, "after the writer has finished nobody is told anything, and all that was submitted is there") {
  RecordId id = 0, last = 0;
  {
    auto journal = open();
    REQUIRE(journal);
    id = add(**journal, "x");
    std::vector<std::shared_ptr<Ticket>> tickets;
    {
      WaitingQueue short_lived;
      for (int i = 0; i < 50; ++i) {
        tickets.push_back(std::make_shared<Ticket>(short_lived));
        (*journal)->writer().submit_urgent(RecordKind::access, note("x"), tickets.back());
      }
      (*journal)->writer().submit_record(RecordKind::outcome, encode(outcome_of(id, "250 at last")));
      (*journal)->finish_writing();
    }
    for (const auto& ticket : tickets) {
      REQUIRE(ticket->is_committed());
      last = std::max(last, ticket->id());
    }
    (*journal)->finish_writing();
  }
  auto entry = reader()->entry(id);
  REQUIRE(entry);
  CHECK(entry->message.recipients[0].reply == "250 at last");
  CHECK(last > id);
}

TEST_CASE_METHOD(JournalFixture, "an outcome is kept also while a damaged segment cannot be followed by another") {
  auto journal = open();
  REQUIRE(journal);
  const RecordId id = add(**journal, some_content(50000));
  REQUIRE(id > 0);
  // The next segment's place is taken by what cannot be put away.
  const std::string obstacle = segment_path(options.path, 2) + ".new";
  std::filesystem::create_directories(obstacle + "/x");
  {
    std::fstream file(segment_path(options.path, 1), std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(2 * 4096);
    file << std::string(std::filesystem::file_size(segment_path(options.path, 1)) - 2 * 4096, '\xff');
  }
  CHECK(add(**journal, "x") == 0);
  (*journal)->writer().submit_record(RecordKind::outcome, encode(outcome_of(id, "250 at last")));
  CHECK(add(**journal, "x") == 0);
  std::filesystem::remove_all(obstacle);
  const RecordId later = add(**journal, "later\r\n");
  REQUIRE(later > 0);
  // It is in the new segment, before or beside what came later.
  auto newest = (*journal)->entry(later);
  REQUIRE(newest);
  CHECK(newest->segment == 2);
  std::vector<std::string> replies;
  auto keys = KeyRing::open(options.path, options.key);
  REQUIRE(keys);
  (*journal)->finish_writing();
  journal->reset();
  auto segment = Segment::open(options.path, 2, *keys, Environment::Mode::read);
  REQUIRE(segment);
  Status read = (*segment)->each_record(0, [&](Segment::StoredRecord& one) {
    if (one.kind != RecordKind::outcome) return true;
    auto outcome = decode_outcome(one.encoded);
    if (outcome && outcome->entry == id) replies.push_back(outcome->changes[0].reply);
    return true;
  });
  CHECK(read);
  CHECK(replies == std::vector<std::string>{"250 at last"});
}

TEST_CASE_METHOD(JournalFixture, "an outcome that is given with a message is in the same commit, in whichever segment that is") {
  auto journal = open();
  REQUIRE(journal);
  Writer& writer = (*journal)->writer();
  const RecordId told = add(**journal, "refused\r\n");
  REQUIRE(told > 0);
  bool has_rolled = GENERATE(false, true);
  auto ticket = std::make_shared<Ticket>(queue);
  Draft draft(writer, ticket);
  draft.append(some_content(200000));
  if (has_rolled) {
    writer.roll_soon();
    for (int i = 0; i < 300 && writer.state().segment == 1; ++i) std::this_thread::sleep_for(std::chrono::milliseconds(10));
    REQUIRE(writer.state().segment == 2);
  }
  MessageRecord message;
  message.time_us = now_us();
  message.recipients.push_back({"a@example.net", "", "", Outcome::held});
  draft.finish(message, outcome_of(told, "550 told"));
  queue.wait_for(*ticket);
  REQUIRE(ticket->is_committed());
  CHECK(writer.state().last_id == ticket->id() + 1);
  journal->reset();
  CHECK(verification().findings.empty());
  auto entry = reader()->entry(told);
  REQUIRE(entry);
  CHECK(entry->message.recipients[0].reply == "550 told");
}

namespace {

/// Drafts that end together, of the sizes given.
struct Together {
  WaitingQueue& queue;
  std::vector<std::shared_ptr<Ticket>> tickets;
  std::vector<std::unique_ptr<Draft>> drafts;
  std::vector<std::string> contents;

  Together(Writer& writer, WaitingQueue& waiting, const std::vector<std::size_t>& sizes) : queue(waiting) {
    for (std::size_t size : sizes) {
      tickets.push_back(std::make_shared<Ticket>(queue));
      drafts.push_back(std::make_unique<Draft>(writer, tickets.back()));
      contents.push_back(some_content(size));
      drafts.back()->append(contents.back());
    }
  }
  void finish() {
    std::vector<Draft::Ending> endings;
    for (const auto& draft : drafts) {
      MessageRecord message;
      message.time_us = now_us();
      message.recipients.push_back({"a@example.net", "", "", Outcome::held});
      endings.push_back({draft.get(), message});
    }
    Draft::finish_together(std::move(endings));
    for (const auto& ticket : tickets) queue.wait_for(*ticket);
  }
  std::size_t committed() const {
    return static_cast<std::size_t>(std::count_if(tickets.begin(), tickets.end(), [](const auto& one) { return one->is_committed(); }));
  }
};

}  // namespace

TEST_CASE_METHOD(JournalFixture, "drafts that end together are all there, or none is") {
  auto journal = open();
  REQUIRE(journal);
  Writer& writer = (*journal)->writer();
  const std::vector<std::size_t> sizes{100, 300000, 0, 70000};
  SECTION("all") {
    Together all(writer, queue, sizes);
    all.finish();
    REQUIRE(all.committed() == sizes.size());
    journal->reset();
    auto read = reader();
    for (std::size_t i = 0; i < sizes.size(); ++i) {
      CHECK(content_of(*read, all.tickets[i]->id()) == all.contents[i]);
      if (i > 0) CHECK(all.tickets[i]->id() > all.tickets[i - 1]->id());
    }
  }
  SECTION("none, while messages are refused; what else is recorded is recorded") {
    writer.refuse_messages("enough");
    Together none(writer, queue, sizes);
    none.finish();
    CHECK(none.committed() == 0);
    for (const auto& ticket : none.tickets) CHECK(ticket->error().message == "enough");
    auto ticket = std::make_shared<Ticket>(queue);
    writer.submit_urgent(RecordKind::access, note("x"), ticket);
    queue.wait_for(*ticket);
    CHECK(ticket->is_committed());
    writer.refuse_messages("");
    Together all(writer, queue, sizes);
    all.finish();
    CHECK(all.committed() == sizes.size());
  }
  SECTION("none, where one had failed before") {
    Together none(writer, queue, {100});
    writer.refuse_messages("enough");
    Together large(writer, queue, {300000});
    queue.wait_for(*large.tickets[0]);
    writer.refuse_messages("");
    none.tickets.push_back(large.tickets[0]);
    none.drafts.push_back(std::move(large.drafts[0]));
    none.finish();
    CHECK(none.committed() == 0);
    CHECK(none.tickets[0]->error().message == "enough");
  }
}
