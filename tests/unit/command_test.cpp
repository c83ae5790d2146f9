#include "proxy/command.h"

#include <catch2/catch.hpp>

using namespace holdfast::proxy;

TEST_CASE("commands are known in any case, with their argument trimmed") {
  CHECK(parse_command("mail FROM:<a@b>").verb == Verb::mail);
  CHECK(parse_command("Ehlo  host \t").argument == "host");
  CHECK(parse_command("QUIT").verb == Verb::quit);
  CHECK(parse_command("DATAX").verb == Verb::unknown);
  CHECK(parse_command("").verb == Verb::unknown);
  CHECK(parse_command("xclient NAME=a").verb == Verb::forbidden);
  CHECK(parse_command("XFORWARD NAME=a").verb == Verb::forbidden);
}

TEST_CASE("envelopes are read with their parameters") {
  auto mail = parse_envelope("FROM:<a@b.c> SIZE=100 body=8BITMIME SMTPUTF8", "FROM:");
  REQUIRE(mail);
  CHECK(mail->address == "a@b.c");
  CHECK(mail->params == "SIZE=100 body=8BITMIME SMTPUTF8");
  REQUIRE(mail->parameters.size() == 3);
  CHECK(mail->parameters[1].key == "BODY");
  CHECK(mail->parameters[1].value == "8BITMIME");
  CHECK(parse_envelope("from:<>", "FROM:")->address.empty());
  CHECK(parse_envelope("TO: <a@b>", "TO:")->address == "a@b");
  CHECK(parse_envelope("TO:a@b NOTIFY=NEVER", "TO:")->address == "a@b");
  // Servers take a tab for a blank: what stands behind it is a parameter of its own, not a part of the one before.
  auto with_tab = parse_envelope("FROM:\t<a@b.c>\tSIZE=1\tBODY=BINARYMIME", "FROM:");
  REQUIRE(with_tab);
  CHECK(with_tab->address == "a@b.c");
  REQUIRE(with_tab->parameters.size() == 2);
  CHECK(with_tab->parameters[1].key == "BODY");
  CHECK_FALSE(parse_envelope("TO:<a@b>", "FROM:"));
  CHECK_FALSE(parse_envelope("TO:<a@b>x", "TO:"));
  CHECK_FALSE(parse_envelope("TO <a@b>", "TO:"));
  CHECK_FALSE(parse_envelope("", "TO:"));
}

TEST_CASE("lines and commands that could mean two things are told apart from all others") {
  CHECK(fault_of_line_end("NOOP\r\n") == "");
  CHECK(fault_of_line_end("\r\n") == "");
  CHECK(fault_of_line_end("NOOP\n") == "bare <LF>");
  CHECK(fault_of_line_end("\n") == "bare <LF>");
  CHECK(fault_of_line_end("NO\rOP\r\n") == "bare <CR>");
  CHECK(fault_of_line_end("NOOP\r\r\n") == "bare <CR>");
  auto fault = [](std::string_view line, bool has_smtputf8 = true) { return fault_of(parse_command(line), line, has_smtputf8); };
  CHECK(fault("MAIL FROM:<a@b>\tSIZE=1") == "");
  CHECK(fault(std::string_view("NOOP \0", 6)) == "control character in a command");
  CHECK(fault("NOOP \x7f") == "control character in a command");
  CHECK(fault("RCPT TO:<\xc3\xa4@b>") == "");
  CHECK(fault("RCPT TO:<\xc3\xa4@b>", false) == "8-bit character in a command");
  CHECK(fault("EHLO \xc3\xa4") == "8-bit character in a command");
  CHECK(fault("RCPT TO:<\xc3@b>") == "bad UTF-8 syntax");
}

TEST_CASE("BDAT takes a size and LAST, and nothing else") {
  CHECK(parse_bdat("10")->size == 10);
  CHECK_FALSE(parse_bdat("10")->is_last);
  CHECK(parse_bdat("0 last")->is_last);
  for (auto bad : {"", "-1", "+1", "0x10", "10 LASTX", "10 LAST LAST", "99999999999999999999", "1 0", "ten", "1,0"}) CHECK_FALSE(parse_bdat(bad));
}
