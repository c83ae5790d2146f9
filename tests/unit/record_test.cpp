#include "journal/record.h"

#include <catch2/catch.hpp>

#include "journal/cell.h"

using namespace holdfast::journal;

namespace {

MessageRecord sample() {
  MessageRecord record;
  record.time_us = 1234567890123456;
  record.session = "1f";
  record.route = "primary";
  record.client = "192.0.2.1:25";
  record.mail_from = "a@b";
  record.recipients = {{"c@d", "NOTIFY=NEVER", "250 ok", Outcome::pending}, {"e@f", "", "550 no", Outcome::rejected}};
  record.size = 42;
  record.content_hash = sha256("x");
  record.message_id = "id@x";
  record.subject = "hello";
  return record;
}

}  // namespace

TEST_CASE("a message record comes back as it was") {
  std::string bytes = encode(sample());
  auto back = decode_message(bytes);
  REQUIRE(back);
  CHECK(encode(*back) == bytes);
  CHECK(back->recipients[1].outcome == Outcome::rejected);
}

TEST_CASE("a record that is cut short, too long or has unknown values is no record") {
  std::string bytes = encode(sample());
  for (std::size_t size = 0; size < bytes.size(); ++size) CHECK_FALSE(decode_message(std::string_view(bytes).substr(0, size)));
  CHECK_FALSE(decode_message(bytes + "x"));
  OutcomeRecord outcome{1, 2, false, {{0, Outcome::forwarded, "250 ok"}}};
  std::string encoded = encode(outcome);
  CHECK(decode_outcome(encoded)->changes[0].reply == "250 ok");
  for (std::size_t size = 0; size < encoded.size(); ++size) CHECK_FALSE(decode_outcome(std::string_view(encoded).substr(0, size)));
}

TEST_CASE("an outcome for all pending recipients leaves the refused ones alone") {
  MessageRecord record = sample();
  bring_up_to_date(record.recipients, {1, 2, false, {{OutcomeRecord::every_pending, Outcome::forwarded, "250 taken"}}});
  CHECK(record.recipients[0].outcome == Outcome::forwarded);
  CHECK(record.recipients[0].reply == "250 taken");
  CHECK(record.recipients[1].outcome == Outcome::rejected);
}

TEST_CASE("sealing is undone only with the same key, place and bytes") {
  Key key = random_key();
  std::string sealed;
  seal(key, "secret", "here", sealed);
  CHECK(open_sealed(key, sealed, "here") == "secret");
  CHECK_FALSE(open_sealed(key, sealed, "there"));
  CHECK_FALSE(open_sealed(random_key(), sealed, "here"));
  for (std::size_t i = 0; i < sealed.size(); ++i) {
    std::string damaged = sealed;
    damaged[i] = static_cast<char>(damaged[i] ^ 1);
    CHECK_FALSE(open_sealed(key, damaged, "here"));
  }
}

TEST_CASE("record cells come back as they were, and damaged ones do not open") {
  Key key = random_key();
  SealedRecord sealed = seal_record(key, RecordKind::message, "encoded");
  RecordCell cell;
  cell.kind = sealed.kind;
  cell.commitment = sealed.commitment;
  cell.link = next_link(Hash{}, sealed.commitment);
  cell.content.extents = {{7, 3}, {12, 1}};
  cell.sealed = sealed.sealed;
  std::string bytes = encode_record_cell(cell);
  auto back = decode_record_cell(bytes);
  REQUIRE(back);
  CHECK(back->content.extents.size() == 2);
  auto opened = open_record(key, *back, Decompressor());
  REQUIRE(opened);
  CHECK(opened->encoded == "encoded");
  // The same record in a compacted segment.
  std::string sealed_again = seal_again(key, cell.kind, opened->salt, opened->encoded, Compressor());
  cell.is_compacted = true;
  cell.content = {{}, {100, 50}, 70, 650, 0};
  cell.sealed = sealed_again;
  std::string compacted_bytes = encode_record_cell(cell);
  auto compacted = decode_record_cell(compacted_bytes);
  REQUIRE(compacted);
  CHECK(compacted->content.frames == std::vector<std::uint32_t>{100, 50});
  CHECK(open_record(key, *compacted, Decompressor())->encoded == "encoded");
  back->commitment[0] ^= 1;
  CHECK_FALSE(open_record(key, *back, Decompressor()));
}

TEST_CASE("what is packed comes back, small and large, with and without a dictionary; nothing else does") {
  std::vector<std::string> samples;
  for (int i = 0; i < 500; ++i)
    samples.push_back("Received: from mail.example.net by mx.example.org; message number " + std::to_string(i * 7919) + ", regards");
  std::string dictionary = train_dictionary(samples, 100);
  CHECK_FALSE(dictionary.empty());
  for (const std::string& used : {std::string(), dictionary}) {
    Compressor compressor(used);
    Decompressor decompressor(used);
    for (const std::string& plain : {std::string(), std::string("x"), samples[3], std::string(60000, 'a')}) {
      std::string packed = compressor.pack(plain);
      CHECK(packed.size() <= plain.size() + 1);
      CHECK(decompressor.unpack(packed, plain.size()) == plain);
      if (!plain.empty()) CHECK_FALSE(decompressor.unpack(packed, plain.size() - 1));
    }
  }
  std::string packed = Compressor(dictionary).pack(samples[3]);
  CHECK_FALSE(Decompressor().unpack(packed, 1000));
  CHECK_FALSE(Decompressor().unpack("", 1000));
  CHECK_FALSE(Decompressor().unpack("\x07xyz", 1000));
  CHECK_FALSE(Decompressor().unpack("\x01not zstd", 1000));
}

TEST_CASE("hexadecimal") {
  CHECK(to_hex("\x01\xff") == "01ff");
  CHECK(from_hex("01fF") == "\x01\xff");
  CHECK_FALSE(from_hex("0"));
  CHECK_FALSE(from_hex("0g"));
}
