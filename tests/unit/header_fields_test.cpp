#include "proxy/header_fields.h"

#include <catch2/catch.hpp>

using namespace holdfast::proxy;

TEST_CASE("Message-ID and Subject are found in the header, unfolded") {
  HeaderFields fields = read_header_fields("Received: by x\r\nmessage-id: <1@x>\r\nSUBJECT: one\r\n two\r\n\r\nSubject: body\r\n");
  CHECK(fields.message_id == "1@x");
  CHECK(fields.subject == "one two");
}

TEST_CASE("a Message-ID is what stands in its angle brackets, and blanks may come before a colon (RFC 5322 4.5)") {
  CHECK(read_header_fields("Message-ID: <a@b> (added by postmaster@relay)\r\n").message_id == "a@b");
  CHECK(read_header_fields("Message-ID: a@b\r\n").message_id == "a@b");
  CHECK(read_header_fields("Message-ID: <a@b\r\n").message_id == "<a@b");
  CHECK(read_header_fields("Message-ID: \r\nMessage-ID: <>\r\n").message_id.empty());
  HeaderFields fields = read_header_fields("Message-ID : <a@b>\r\nSubject\t: x\r\nSubject\r\n\t: y\r\n");
  CHECK(fields.message_id == "a@b");
  CHECK(fields.subject == "x");
}

TEST_CASE("the body is not looked at, and bad headers do no harm") {
  CHECK(read_header_fields("\r\nSubject: body\r\n").subject.empty());
  CHECK(read_header_fields("").subject.empty());
  CHECK(read_header_fields("Subject").subject.empty());
  CHECK(read_header_fields("Subject: x").subject == "x");
  CHECK(read_header_fields("Subject: " + std::string(5000, 'x') + "\r\n").subject.size() == 998);
  CHECK(read_header_fields("Message-ID:\r\n <folded@x>\r\n").message_id == "folded@x");
}
