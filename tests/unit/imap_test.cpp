#include <fmt/format.h>

#include <algorithm>
#include <catch2/catch.hpp>
#include <set>

#include "proxy/careless_header.h"
#include "proxy/imap_command.h"
#include "proxy/imap_format.h"
#include "proxy/imap_list.h"
#include "proxy/imap_search.h"
#include "proxy/imap_sort.h"
#include "proxy/mime.h"

using namespace holdfast::proxy;

TEST_CASE("mailbox names go to modified UTF-7 and back (RFC 3501 5.1.3)") {
  for (auto [utf8, wire] :
       {std::pair("INBOX", "INBOX"), {"M\xc3\xbcller & Co", "M&APw-ller &- Co"}, {"\xe2\x98\xba", "&Jjo-"}, {"\xf0\x9f\x93\xa8", "&2D3c6A-"}}) {
    CHECK(encode_mailbox_name(utf8) == wire);
    CHECK(decode_mailbox_name(wire) == utf8);
  }
  CHECK_FALSE(decode_mailbox_name("&Jjo"));
  CHECK_FALSE(decode_mailbox_name("\xff"));
}

TEST_CASE("what announces a literal, and what does not") {
  CHECK(literal_at_end("a LOGIN {5}")->size == 5);
  CHECK(literal_at_end("a LOGIN {5}")->waits);
  CHECK_FALSE(literal_at_end("a LOGIN {5+}")->waits);
  for (const char* line : {"{}", "{+}", "{-1}", "{5 }", "{5", "5}", ""}) CHECK_FALSE(literal_at_end(line));
  // More than can be counted is too much, not nothing: what follows must not be taken for commands.
  CHECK(literal_at_end("{99999999999999999999999+}")->size == UINT64_MAX);
}

TEST_CASE("sequence sets: ranges in any order, and the star") {
  auto parse = [](const char* text) { return ImapText(text).sequence_set(); };
  CHECK(parse("3:1,*")->contains(2, 10));
  CHECK(parse("3:1,*")->contains(10, 10));
  CHECK_FALSE(parse("3:1,*")->contains(4, 10));
  CHECK(parse("12:*")->contains(10, 10));  // RFC 3501: the last one is always in it
  for (const char* text : {"0", "", "1:", ",1", "a", "4294967296"}) CHECK_FALSE(parse(text));
}

namespace {

/// What LIST or LSUB answers, a name a line, where these folders are; those that end in "!" were deleted, "*" is subscribed.
std::string list_of(std::optional<ListRequest> (*parse)(ImapText&), const char* arguments, const std::vector<std::string>& folders) {
  ImapText text(arguments);
  std::optional<ListRequest> request = parse(text);
  if (!request) return "BAD";
  std::vector<ListedName> names;
  for (std::string name : folders) {
    bool is_gone = name.ends_with('!'), is_subscribed = is_gone || name.ends_with('*');
    if (is_subscribed) name.pop_back();
    names.push_back({name, !is_gone, is_subscribed, name == "Sent" ? "\\Sent" : ""});
  }
  std::string out;
  for (const ListedName& one : chosen_names(*request, names)) out += listed(*request, one) + "\n";
  return out;
}

}  // namespace

TEST_CASE("LIST: names above folders are shown where they are none themselves, INBOX is in capitals (RFC 3501 6.3.8)") {
  auto list = [](const char* arguments) { return list_of(parse_list, arguments, {"Work/A", "INBOX", "INBOX/x", "Work/A/B", "Sent"}); };
  CHECK(list(R"( "" %)") == R"((\HasChildren) "/" "INBOX")"
                            "\n"
                            R"((\HasNoChildren \Sent) "/" "Sent")"
                            "\n"
                            R"((\Noselect \HasChildren) "/" "Work")"
                            "\n");
  CHECK(list(R"( "" Work/%)") == R"((\HasChildren) "/" "Work/A")"
                                 "\n");
  CHECK(list(R"( Work/ *)") == R"((\HasChildren) "/" "Work/A")"
                               "\n"
                               R"((\HasNoChildren) "/" "Work/A/B")"
                               "\n");
  CHECK(list(R"( "" inbox/%)") == R"((\HasNoChildren) "/" "INBOX/x")"
                                  "\n");
  CHECK(list(R"( (SPECIAL-USE) "" *)") == R"((\HasNoChildren \Sent) "/" "Sent")"
                                          "\n");
  CHECK(list(R"( "" (%) RETURN (CHILDREN))").find(R"((\NonExistent \HasChildren) "/" "Work")") != std::string::npos);
  CHECK(list(R"( "" none)").empty());
}

TEST_CASE("LIST with options: what is subscribed, names above it, and nothing that is not known (RFC 5258)") {
  auto list = [](const char* arguments) { return list_of(parse_list, arguments, {"a*", "a/b", "c", "c/d*", "e/f!", "g!"}); };
  CHECK(list(R"( (SUBSCRIBED) "" *)") == R"((\HasChildren \Subscribed) "/" "a")"
                                         "\n"
                                         R"((\HasNoChildren \Subscribed) "/" "c/d")"
                                         "\n"
                                         R"((\NonExistent \HasNoChildren \Subscribed) "/" "e/f")"
                                         "\n"
                                         R"((\NonExistent \HasNoChildren \Subscribed) "/" "g")"
                                         "\n");
  CHECK(list(R"( (SUBSCRIBED RECURSIVEMATCH) "" c%)") == R"((\HasChildren) "/" "c" ("CHILDINFO" ("SUBSCRIBED")))"
                                                         "\n");
  CHECK(list(R"( (RECURSIVEMATCH SUBSCRIBED) "" e%)") == R"((\NonExistent \HasNoChildren) "/" "e" ("CHILDINFO" ("SUBSCRIBED")))"
                                                         "\n");
  CHECK(list(R"( (SUBSCRIBED RECURSIVEMATCH) "" (c c/d))") == R"((\HasNoChildren \Subscribed) "/" "c/d")"
                                                              "\n");
  CHECK(list(R"( (REMOTE) "" c RETURN (SUBSCRIBED))") == R"((\HasChildren) "/" "c")"
                                                         "\n");
  CHECK(list(R"( () "" a)") == R"((\HasChildren) "/" "a")"
                               "\n");
  CHECK(list(R"( "" e/f)").empty());
  for (const char* bad : {R"( (X) "" "")", R"( (RECURSIVEMATCH) "" "")", R"( (RECURSIVEMATCH REMOTE) "" "")", R"( "" "" RETURN (X))", R"( "" * X)",
                          R"( "")", "", R"( "" "" RETURN (STATUS (X)))", R"( "" ("a" b)", R"( "" ())"})
    CHECK(list(bad) == "BAD");
}

TEST_CASE("LSUB: a % gives the name above a subscribed one; a deleted folder's name stays (RFC 3501 6.3.6, 6.3.9)") {
  auto lsub = [](const char* arguments) { return list_of(parse_lsub, arguments, {"a*", "a/b*", "c", "c/d*", "e/f!", "h"}); };
  CHECK(lsub(R"( "" %)") == R"((\HasChildren) "/" "a")"
                            "\n"
                            R"((\Noselect \HasChildren) "/" "c")"
                            "\n"
                            R"((\Noselect \HasNoChildren) "/" "e")"
                            "\n");
  CHECK(lsub(R"( "" *)") == R"((\HasChildren) "/" "a")"
                            "\n"
                            R"((\HasNoChildren) "/" "a/b")"
                            "\n"
                            R"((\HasNoChildren) "/" "c/d")"
                            "\n"
                            R"((\Noselect \HasNoChildren) "/" "e/f")"
                            "\n");
  CHECK(lsub(R"( (SUBSCRIBED) "" *)") == "BAD");
}

TEST_CASE("MODSEQ in SEARCH may name a flag, which makes no difference here (RFC 7162 3.1.5)") {
  auto modseq = [](const char* arguments) -> std::uint64_t {
    ImapText text(arguments);
    auto command = parse_search(text);
    return command && command->has_modseq ? command->key.children.front().number : 0;
  };
  CHECK(modseq("MODSEQ 620162338") == 620162338);
  CHECK(modseq("MODSEQ \"/flags/\\\\draft\" all 620162338") == 620162338);
  for (const char* bad : {"MODSEQ", "MODSEQ \"/flags/x\" 5", "MODSEQ \"/flags/x\" some 5", "MODSEQ \"/flags/x\" all", "MODSEQ all 5"})
    CHECK(modseq(bad) == 0);
}

/// A message that was sent at second `number`.
static SortFacts facts(std::uint32_t number, const std::string& id, std::vector<std::string> references, const char* subject, bool is_reply = false) {
  SortFacts one;
  one.number = number;
  one.sent_s = number;
  one.message_id = id;
  one.references = std::move(references);
  one.subject = subject;
  one.is_reply = is_reply;
  return one;
}

TEST_CASE("threads by references: chains, siblings, a lost parent, replies by subject, and a circle") {
  CHECK(thread_by_references({facts(1, "a", {}, "x"), facts(2, "b", {"a"}, "x", true), facts(3, "c", {"a"}, "x", true)}) == "(1 (2)(3))");
  CHECK(thread_by_references({facts(1, "a", {}, "x"), facts(2, "b", {"a"}, "x", true), facts(3, "c", {"a", "b"}, "x", true)}) == "(1 2 3)");
  CHECK(thread_by_references({facts(2, "b", {"lost"}, "y", true), facts(3, "c", {"lost"}, "y", true)}) == "((2)(3))");
  CHECK(thread_by_references({facts(1, "a", {}, "x"), facts(2, "b", {}, "x", true)}) == "(1 2)");
  CHECK(thread_by_references({facts(1, "a", {"b"}, "x"), facts(2, "b", {"a"}, "z")}).size() > 0);
  CHECK(thread_by_references({}).empty());
  CHECK(thread_by_references({facts(2, "b", {"lost"}, "y", true)}) == "(2)");
  CHECK(thread_by_references({facts(1, "a", {}, "x"), facts(2, "b", {"a", "lost"}, "x", true)}) == "(1 2)");
}

TEST_CASE(
    "threads of the same subject are joined, whichever has lost its beginning, and stand in order of time (RFC 5256 REFERENCES, steps 5 and 6)") {
  // Neither began the other.
  CHECK(thread_by_references({facts(1, "a", {}, "x"), facts(2, "b", {}, "x")}) == "((1)(2))");
  CHECK(thread_by_references({facts(1, "a", {}, "x", true), facts(2, "b", {}, "x", true), facts(3, "c", {}, "x", true)}) == "((1)(2)(3))");
  CHECK(thread_by_references({facts(1, "a", {}, "x"), facts(2, "b", {"a"}, "x", true), facts(3, "c", {}, "x")}) == "((1 2)(3))");
  // The beginnings of both are lost, or of one.
  CHECK(thread_by_references({facts(1, "a", {"l"}, "x", true), facts(4, "b", {"l"}, "x", true), facts(2, "c", {"m"}, "x", true),
                              facts(3, "d", {"m"}, "x", true)}) == "((1)(2)(3)(4))");
  CHECK(thread_by_references({facts(1, "a", {}, "x"), facts(2, "z", {}, "z"), facts(3, "b", {"l"}, "x", true), facts(4, "c", {"l"}, "x", true)}) ==
        "((1)(3)(4))(2)");
  // A clock was wrong: the reply came before what it answers.
  CHECK(thread_by_references({facts(1, "r", {}, "x", true), facts(2, "o", {}, "x"), facts(3, "c", {"o"}, "x", true)}) == "(2 (1)(3))");
  CHECK(thread_by_subject({facts(1, "a", {}, "x"), facts(2, "b", {}, "x"), facts(4, "c", {}, "y"), facts(3, "d", {}, "x")}) == "(1 (2)(3))(4)");
}

TEST_CASE("a thread that is too deep is told less deep, and all of it") {
  std::vector<SortFacts> all;
  for (std::uint32_t number = 1; number <= 1500; ++number)
    all.push_back(facts(number, std::to_string(number), {std::to_string(number - 1)}, "x", number > 1));
  std::string told = thread_by_references(all);
  std::set<std::string> numbers;
  for (std::size_t at = 0; at < told.size();) {
    std::size_t end = told.find_first_not_of("0123456789", at);
    if (end > at) numbers.insert(told.substr(at, end - at));
    at = end + 1;
  }
  CHECK(numbers.size() == 1500);
  CHECK(std::count(told.begin(), told.end(), '(') == std::count(told.begin(), told.end(), ')'));
}

TEST_CASE("threads are not made by what is no message id: people have answered <yes> when they were asked for one") {
  holdfast::failover::StoredMessage stored{};
  ReadMessage message(stored, [](bool) { return std::string("Message-ID: <own@x>\r\nReferences: <yes> <a@x> <>\r\nIn-Reply-To: <yes>\r\n\r\n"); });
  SortFacts facts = sort_facts(message, 1);
  CHECK(facts.message_id == "<own@x>");
  CHECK(facts.references == std::vector<std::string>{"<a@x>"});
}

TEST_CASE("text is ordered by its capitals: what stands between capitals and small letters in ASCII comes after letters (RFC 5051)") {
  std::vector<SortFacts> all;
  for (const char* subject : {"_", "b", "[x]", "C", "a", "\xc3\xa4"}) {
    holdfast::failover::StoredMessage stored{};
    ReadMessage message(stored, [&](bool) { return fmt::format("Subject: {}\r\nFrom: {}@example.net\r\n\r\n", subject, subject); });
    all.push_back(sort_facts(message, static_cast<std::uint32_t>(all.size() + 1)));
  }
  for (SortCommand::By by : {SortCommand::By::subject, SortCommand::By::from}) {
    sort_messages(all, {{by, false}});
    std::string order;
    for (const SortFacts& one : all) order += std::to_string(one.number);
    CHECK(order == "524316");
  }
}

TEST_CASE("the base of a subject (RFC 5256 2.1)") {
  auto base = [](const std::string& subject) {
    holdfast::failover::StoredMessage stored{};
    ReadMessage message(stored, [&](bool) { return "Subject: " + subject + "\r\n\r\n"; });
    SortFacts facts = sort_facts(message, 1);
    return (facts.is_reply ? "re: " : "") + facts.subject;
  };
  CHECK(base("Offer") == "OFFER");
  CHECK(base("Re:  Fwd: AW: Offer \tof  today (fwd) (fwd) ") == "re: OFFER OF TODAY");
  CHECK(base("[list] [other] Offer") == "OFFER");
  CHECK(base("[list] Re [2] : [list] Offer") == "re: OFFER");
  CHECK(base("[only]") == "[ONLY]");
  CHECK(base("Re: [a] [b]") == "re: [B]");
  CHECK(base("[Fwd: Offer]") == "re: OFFER");
  CHECK(base("[Fwd: [list] [fwd: Re: Offer (fwd)] ]") == "re: OFFER");
  CHECK(base("[Fwd: Offer] and more") == "AND MORE");
  CHECK(base("Regards: x") == "REGARDS: X");
  CHECK(base("Re:") == "re: ");
  CHECK(base("") == "");
}

TEST_CASE("what a message says of itself is read in a time that grows with its size and no faster, and without deep recursion") {
  auto repeated = [](std::string_view what, std::size_t times) {
    std::string text;
    for (std::size_t i = 0; i < times; ++i) text += what;
    return text;
  };
  for (std::string_view what : {"re:", "[a]", "[fwd:", "(fwd)", "=?utf-8?b?eA==?= ", "=?a?q?"}) {
    holdfast::failover::StoredMessage stored{};
    ReadMessage message(stored, [&](bool) { return "Subject: " + repeated(what, 1'000'000) + "\r\n\r\n"; });
    CHECK(sort_facts(message, 1).subject.size() <= longest_field_value);
  }
  for (std::string_view what : {"a:", "a:b,", "(", "<", "\"", "a@b,", "[", "\\"}) {
    std::string header = "To: x@y\r\nFrom: " + repeated(what, 1'000'000) + "\r\n\r\n";
    CHECK(imap_envelope(header).find("((NIL NIL \"x\" \"y\"))") != std::string::npos);
    CHECK(parse_addresses(repeated(what, 100'000)).size() < 500'000);
  }
  CHECK(parse_addresses("team: a@x, b@x;, other: c@x;").size() == 7);
  for (std::string_view what : {"\xc3\xbc\r\n", "\xcc\x81\xcc\x96\xcc\xa8", "\xe4\xb8\x96"}) {
    SearchKey key;
    key.kind = SearchKey::Kind::body;
    key.text = "gr\xc3\xbc\xc3\x9f";
    holdfast::failover::StoredMessage stored{};
    ReadMessage message(stored,
                        [&](bool) { return "Content-Type: text/plain; charset=utf-8\r\n\r\n" + repeated(what, 300'000) + "Gr\xc3\x9c\xc3\x9f"; });
    CHECK(matches(folded(key), message, 1, {}));
  }
  std::string same = repeated("--b\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n", 100'000);
  CHECK(parse_mime("Content-Type: multipart/mixed; boundary=b\r\n\r\n" + same).is_multipart());
}

TEST_CASE("a message in a part that is encoded is not looked into, but is told as what it is (RFC 3501 9, body-type-msg)") {
  std::string text = "Content-Type: message/rfc822\r\nContent-Transfer-Encoding: base64\r\n\r\nU3ViamVjdDogeA0KDQp4\r\n";
  CHECK(imap_structure(text, parse_mime(text), false) ==
        "(\"message\" \"rfc822\" NIL NIL NIL \"base64\" 22 (NIL NIL NIL NIL NIL NIL NIL NIL NIL NIL) "
        "(\"text\" \"plain\" (\"charset\" \"us-ascii\") NIL NIL \"7bit\" 0 0) 1)");
  BodySection section;
  section.part = {1, 1};
  CHECK(imap_section(text, parse_mime(text), section)->of(text) == "");
}

TEST_CASE("the envelope takes what careless senders write") {
  CHECK(imap_envelope("From: a@x\r\nTo: b@x\r\nCc: c@x\r\nto: d@x,\r\n e@x\r\nCC:\r\n\r\n") ==
        "(NIL NIL ((NIL NIL \"a\" \"x\")) ((NIL NIL \"a\" \"x\")) ((NIL NIL \"a\" \"x\")) "
        "((NIL NIL \"b\" \"x\")(NIL NIL \"d\" \"x\")(NIL NIL \"e\" \"x\")) ((NIL NIL \"c\" \"x\")) NIL NIL NIL)");
  CHECK(imap_envelope("From: MAILER DAEMON <>\r\n\r\n").find("((\"MAILER DAEMON\" NIL \"MISSING_MAILBOX\" \"MISSING_DOMAIN\"))") !=
        std::string::npos);
  CHECK(imap_envelope("From: <>\r\nTo:\r\n\r\n") == "(NIL NIL NIL NIL NIL NIL NIL NIL NIL NIL)");
  CHECK(imap_envelope("Subject:\r\nMessage-ID: \r\n\r\n") == "(NIL \"\" NIL NIL NIL NIL NIL NIL NIL \"\")");
}

TEST_CASE("encoded words that are padded, one after the other, are all read: in a subject, a name and a file's name") {
  std::string two = "=?utf-8?B?SsO8cmdlbg==?=\t=?utf-8?B?TcO8bGxlcg==?=", three = two + " =?utf-8?b?KGMp?= end";
  CHECK(decode_header_text(three) == "J\xc3\xbcrgenM\xc3\xbcller(c) end");
  CHECK(decode_header_text("=?utf-8?b?w7w=?==?utf-8?b?w7w=?=") == "\xc3\xbc\xc3\xbc");  // as some write it, without a blank
  CHECK(decode_header_text("=?utf-8?q?=C3?= =?utf-8?q?=BC?=") == "\xc3\xbc");
  REQUIRE(parse_addresses(two + " <a@example.net>").size() == 1);
  CHECK(parse_addresses(two + " <a@example.net>").front().name == "J\xc3\xbcrgenM\xc3\xbcller");
  MimePart part =
      parse_mime("Content-Type: application/pdf; name=\"" + two + "\"\r\nContent-Disposition: attachment; filename=\"" + two + "\"\r\n\r\nx");
  REQUIRE(part.parameters.size() == 1);
  CHECK(part.parameters.front().second == "J\xc3\xbcrgenM\xc3\xbcller");
  REQUIRE(part.disposition_parameters.size() == 1);
  CHECK(part.disposition_parameters.front().second == "J\xc3\xbcrgenM\xc3\xbcller");
}

TEST_CASE("encoded words without their padding are read to their end; those that others' mailers cut between bytes are one") {
  CHECK(parse_addresses("=?utf-8?B?eHB0bw?= <a@example.net>").front().name == "xpto");
  CHECK(decode_header_text("=?utf-8?B?eHB0bw=?= and =?utf-8?b?eHB0?= =?utf-8?b?bw?=") == "xpto and xpto");
  CHECK(decode_header_text("=?utf-8?b?w6?= =?utf-8?b?RNw7w?=") == "\xc3\xa4M\xc3\xbc");
  CHECK(decode_header_text("=?utf-8?q?eHB0bw?= =?b?eHB0bw?= ?b?eHB0bw?=") == "eHB0bw =?b?eHB0bw?= ?b?eHB0bw?=");
}

TEST_CASE("addresses with dots where RFC 5322 has none are addresses, as they are in many companies and at Japanese phones") {
  auto all = parse_addresses("s..palmer@example.org, \"s..p@x\" <abc.@example.net>, (s..p@x) .abc@example.org, j..@, \"a..b\"@x, J.. <d@x>");
  std::string told;
  for (const MailAddress& one : all) told += one.name + "|" + one.mailbox + "|" + one.host + "\n";
  CHECK(told == "|s..palmer|example.org\ns..p@x|abc.|example.net\n|.abc|example.org\n|a..b|x\nJ..|d|x\n");
}

TEST_CASE("address lists as Outlook and ticket systems write them are read whole: semicolons between addresses, brackets in names") {
  auto told = [](const char* value) {
    std::string all;
    for (const MailAddress& one : parse_addresses(value)) all += one.name + "|" + one.mailbox + "|" + one.host + "\n";
    return all;
  };
  CHECK(told("a@x; Bob <b@x>;c@x;") == "|a|x\nBob|b|x\n|c|x\n");
  CHECK(told("[Ticket 7] Ada <a@x>, [b] <b@x>") == "[Ticket 7] Ada|a|x\n[b]|b|x\n");
  CHECK(told("team: a@x, b@x; c@x; \"d; [e]\" <d@[192.0.2.1]>, f@[IPv6:::1] (g; h)") ==
        "|team|\n|a|x\n|b|x\n||\n|c|x\nd; [e]|d|[192.0.2.1]\ng; h|f|[IPv6:::1]\n");
  CHECK(told("a@x; [b") == "|a|x\n");
}

TEST_CASE("whatever can be taken for an address in a list is found, however it is written") {
  using Words = std::vector<std::string>;
  CHECK(words_with_at_sign("Ada <a@x>,b@x;\r\n c@x \"d@x\" (e@x) <f@x>") == Words{"a@x", "b@x", "c@x", "f@x"});
  CHECK(words_with_at_sign("@g <@h:i@x> j[k]@x l @ x m@x@y") == Words{"@g", "@h", "i@x", "j[k]@x", "@", "m@x@y"});
  CHECK(words_with_at_sign("\"n o\"@x, p@x") == Words{"n o@x", "p@x"});
  CHECK(words_with_at_sign("\"q\" r@x \"s@x") == Words{"r@x"});
  CHECK(words_with_at_sign("").empty());
}

TEST_CASE("a boundary that looks like the end of an encoded word and the begin of another stays as it is") {
  std::string message = "Content-Type: multipart/mixed; boundary=\"a=?==?b\"\r\n\r\n--a=?==?b\r\n\r\none\r\n--a=?==?b--\r\n";
  CHECK(parse_mime(message).is_multipart());
}

TEST_CASE("envelopes have local parts in UTF-8 as they are (RFC 6532), names of people and groups as encoded words") {
  std::string envelope = imap_envelope("From: Jøran <jøran@example.com>\r\nTo: Räte: a@x;\r\n\r\n");
  CHECK(envelope.find("((\"=?UTF-8?b?SsO4cmFu?=\" NIL {6}\r\njøran \"example.com\"))") != std::string::npos);
  CHECK(envelope.find("((NIL NIL \"=?UTF-8?b?UsOkdGU=?=\" NIL)(NIL NIL \"a\" \"x\")(NIL NIL NIL NIL))") != std::string::npos);
}

TEST_CASE("envelopes have local parts without their quotes, structures have languages as a list (RFC 3501 7.4.2)") {
  CHECK(parse_addresses("\"x \\\"y\"@example.org").front().mailbox == "x \"y");
  std::string message = "Content-Language: en, de\r\n\r\nx", one = "Content-Language: en\r\n\r\nx";
  CHECK(imap_structure(message, parse_mime(message), true).find("(\"en\" \"de\")") != std::string::npos);
  CHECK(imap_structure(one, parse_mime(one), true).find(" \"en\" ") != std::string::npos);
}

TEST_CASE("text is US-ASCII where nothing else is said, and a multipart without parts is text") {
  auto structure = [](const std::string& text) { return imap_structure(text, parse_mime(text), false); };
  CHECK(structure("\r\nx\r\n") == "(\"text\" \"plain\" (\"charset\" \"us-ascii\") NIL NIL \"7bit\" 3 1)");
  CHECK(structure("Content-Type: text/html; charset=utf-8\r\n\r\nx") == "(\"text\" \"html\" (\"charset\" \"utf-8\") NIL NIL \"7bit\" 1 0)");
  CHECK(structure("Content-Type: image/png\r\n\r\nx") == "(\"image\" \"png\" NIL NIL NIL \"7bit\" 1)");
  CHECK(structure("Content-Type: multipart/mixed; boundary=b\r\n\r\n--c\r\n") ==
        "(\"text\" \"plain\" (\"charset\" \"us-ascii\") NIL NIL \"7bit\" 5 1)");
}

TEST_CASE("searching TEXT finds attachments by their names; BODY does not") {
  std::string text =
      "Subject: x\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\none\r\n--b\r\nContent-Type: application/pdf\r\n"
      "Content-Disposition: attachment; filename*=UTF-8''Angebot%20M%C3%BCller.pdf\r\n\r\nx\r\n--b--\r\n";
  holdfast::failover::StoredMessage stored{};
  ReadMessage message(stored, [&](bool) { return text; });
  auto finds = [&](SearchKey::Kind kind, const char* words) {
    SearchKey key;
    key.kind = kind;
    key.text = words;
    return matches(folded(key), message, 1, {});
  };
  CHECK(finds(SearchKey::Kind::text, "angebot m\xc3\xbcller"));
  CHECK(finds(SearchKey::Kind::text, "application/pdf"));
  CHECK_FALSE(finds(SearchKey::Kind::body, "angebot"));
  CHECK_FALSE(finds(SearchKey::Kind::text, "nothing of it"));
}

TEST_CASE("searching a report finds what its machine-readable part says") {
  std::string text =
      "Content-Type: multipart/report; boundary=b\r\n\r\n--b\r\nContent-Type: message/delivery-status\r\n\r\n"
      "Final-Recipient: rfc822; eve@example.net\r\nAction: failed\r\n--b--\r\n";
  holdfast::failover::StoredMessage stored{};
  ReadMessage message(stored, [&](bool) { return text; });
  SearchKey key;
  key.kind = SearchKey::Kind::body;
  key.text = "Action: failed";
  CHECK(matches(folded(key), message, 1, {}));
}

TEST_CASE("a multipart inside another with the same boundary, as Outlook Express for Macintosh wrote it") {
  std::string text =
      "Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Type: multipart/alternative;\r\n boundary=\"b\"\r\n\r\n"
      "--b\r\nContent-Type: text/plain\r\n\r\none\r\n--b\r\nContent-Type: text/html\r\n\r\n<p>one\r\n--b--\r\n\r\n"
      "--b\r\nContent-Type: image/gif\r\n\r\ngif\r\n--b--\r\nafter";
  MimePart root = parse_mime(text);
  REQUIRE(root.children.size() == 2);
  REQUIRE(root.children[0].children.size() == 2);
  CHECK(root.children[0].children[0].body.of(text) == "one");
  CHECK(root.children[0].children[1].body.of(text) == "<p>one");
  CHECK(root.children[1].subtype == "gif");
  CHECK(root.children[1].body.of(text) == "gif");
}

TEST_CASE("a message's parts lie where they are, nested and unfinished ones too") {
  std::string text =
      "Content-Type: multipart/mixed; boundary=b\r\n\r\nbefore\r\n--b\r\n\r\none\r\n--b\r\nContent-Type: "
      "text/html\r\n\r\ntwo";
  MimePart root = parse_mime(text);
  REQUIRE(root.children.size() == 2);
  CHECK(root.children[0].body.of(text) == "one");
  CHECK(root.children[1].subtype == "html");
  CHECK(root.children[1].body.of(text) == "two");
  // Nothing delimits the last part: its line end is its own.
  std::string unfinished = "Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\none\r\n";
  CHECK(parse_mime(unfinished).children.at(0).body.of(unfinished) == "one\r\n");
  CHECK(parse_mime("").body.size() == 0);
  CHECK(parse_mime("Subject: x").header.size() == 10);
}
