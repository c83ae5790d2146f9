// A message: its parts lie within it, and whatever IMAP asks of it is answered.
#include "proxy/mime.h"

#include "proxy/careless_header.h"
#include "proxy/imap_format.h"
#include "proxy/imap_search.h"
#include "proxy/imap_sort.h"
#include "tests/fuzz/fuzz.h"

using namespace holdfast::proxy;

namespace {

void check(const MimePart& part, std::size_t size) {
  REQUIRE_TRUE(part.header.begin <= part.header.end && part.header.end <= part.body.begin && part.body.begin <= part.body.end &&
               part.body.end <= size);
  for (const MimePart& child : part.children) {
    REQUIRE_TRUE(child.header.begin >= part.body.begin && child.body.end <= part.body.end);
    check(child, size);
  }
}

}  // namespace

void fuzz(std::string_view input) {
  MimePart root = parse_mime(input);
  check(root, input.size());
  (void)imap_envelope(root.header.of(input));
  for (const std::string& word : words_with_at_sign(input)) REQUIRE_TRUE(word.find('@') != std::string::npos);
  (void)imap_structure(input, root, true);
  (void)decode_body(input, root);
  holdfast::failover::StoredMessage stored;
  ReadMessage message(stored, [&](bool) { return std::string(input); });
  std::vector<SortFacts> facts;
  for (std::uint32_t number : {1U, 2U}) facts.push_back(sort_facts(message, number));
  (void)thread_by_references(facts);
  SearchKey key;
  key.kind = SearchKey::Kind::text;
  key.text = "needle\xc3\xa4";
  (void)matches(folded(key), message, 1, {1, 1, 0});
}
