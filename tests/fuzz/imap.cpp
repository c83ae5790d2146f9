// An IMAP command: it is understood or not, and what is understood can be carried out on a message.
#include "proxy/imap_command.h"
#include "proxy/imap_format.h"
#include "proxy/imap_list.h"
#include "proxy/imap_search.h"
#include "tests/fuzz/fuzz.h"

using namespace holdfast::proxy;

void fuzz(std::string_view input) {
  static const std::string content =
      "Subject: x\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\none\r\n--b\r\nContent-Type: "
      "message/rfc822\r\n\r\nSubject: y\r\n\r\ntwo\r\n--b--\r\n";
  static const MimePart root = parse_mime(content);
  (void)literal_at_end(input);
  {
    ImapText text(input);
    if (auto items = parse_fetch(text))
      for (const BodySection& section : items->sections) (void)imap_section(content, root, section);
  }
  holdfast::failover::StoredMessage stored;
  auto try_search = [&](const SearchCommand& command) {
    ReadMessage message(stored, [&](bool) { return content; });
    (void)matches(folded(command.key), message, 1, {1, 1, 0});
  };
  {
    ImapText text(input);
    if (auto command = parse_search(text)) try_search(*command);
  }
  {
    ImapText text(input);
    if (auto command = parse_sort(text)) try_search(command->search);
  }
  static const std::vector<ListedName> names = {{"INBOX"}, {"a/b", true, true}, {"a/b/c"}, {"d/e", false, true}, {"Sent", true, true, "\\Sent"}};
  for (auto parse : {parse_list, parse_lsub}) {
    ImapText text(input);
    if (auto request = parse(text))
      for (const ListedName& one : chosen_names(*request, names)) (void)listed(*request, one);
  }
  for (int form = 0; form < 6; ++form) {
    ImapText text(input);
    if (form == 0) (void)text.flags();
    if (form == 1) (void)text.date_time();
    if (form == 2) (void)text.astring();
    if (form == 3) (void)text.list_mailbox();
    if (form == 4) (void)text.sequence_set();
    if (form == 5) (void)text.date();
  }
  if (auto name = decode_mailbox_name(input)) {
    auto again = decode_mailbox_name(encode_mailbox_name(*name));
    REQUIRE_TRUE(again && *again == *name);
  }
}
