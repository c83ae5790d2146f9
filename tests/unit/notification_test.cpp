#include "failover/notification.h"

#include <algorithm>
#include <catch2/catch.hpp>

using namespace holdfast;
using namespace holdfast::failover;

namespace {

journal::Entry sample() {
  journal::Entry entry;
  entry.id = 42;
  entry.message.time_us = 1'700'000'000'000'000;
  entry.message.client = "[2001:db8::7]:4000";
  entry.message.helo = "client.example.net";
  entry.message.protocol = "ESMTPS";
  entry.message.mail_from = "a@example.net";
  entry.message.mail_params = "RET=HDRS ENVID=QQ+2B314";
  entry.message.message_id = "id@example.net";
  entry.message.recipients = {{"b@example.org", "NOTIFY=FAILURE ORCPT=rfc822;B+2Btag@example.org", "", journal::Outcome::held}};
  return entry;
}

}  // namespace

TEST_CASE("the Received line says how the message came") {
  CHECK(received_line(sample(), "mx.example.org", "b@example.org") ==
        "Received: from client.example.net ([IPv6:2001:db8::7])\r\n\tby mx.example.org with ESMTPS id 42\r\n\tfor <b@example.org>;\r\n"
        "\tTue, 14 Nov 2023 22:13:20 +0000\r\n");
  journal::Entry forged = sample();
  forged.message.helo = "x\r\nEvil: yes";
  CHECK(received_line(forged, "mx", "").find("\r\nEvil") == std::string::npos);
}

TEST_CASE("NOTIFY is honoured, and without it only failures are told") {
  CHECK(notify_of("").failure);
  CHECK_FALSE(notify_of("").success);
  CHECK_FALSE(notify_of("NOTIFY=NEVER").failure);
  CHECK(notify_of("ORCPT=rfc822;x notify=Success,Delay").success);
  CHECK(notify_of("NOTIFY=SUCCESS,DELAY").delay);
  CHECK_FALSE(notify_of("NOTIFY=SUCCESS,DELAY").failure);
}

TEST_CASE("a notification is a multipart/report with the facts of RFC 3464 and the original header") {
  journal::Entry entry = sample();
  Notification n;
  n.reporting_mta = "mx.example.org";
  n.time_us = entry.message.time_us;
  n.id = "1";
  n.entry = &entry;
  n.recipients = {{"b@example.org", entry.message.recipients[0].params, "550 5.1.1 <b@example.org>: unknown", "5.1.1"}};
  n.original = "Subject: hello\r\nFrom: a@example.net\r\n";
  std::string text = write_notification(n);
  for (const char* line : {"Content-Type: multipart/report; report-type=delivery-status;", "To: <a@example.net>", "Auto-Submitted: auto-replied",
                           "Reporting-MTA: dns; mx.example.org", "Original-Envelope-Id: QQ+314", "Original-Recipient: rfc822; B+tag@example.org",
                           "Final-Recipient: rfc822; b@example.org", "Action: failed", "Status: 5.1.1",
                           "Diagnostic-Code: smtp; 550 5.1.1 <b@example.org>: unknown", "Content-Type: text/rfc822-headers", "Subject: hello"}) {
    INFO(line);
    CHECK(text.find(std::string(line) + "\r\n") != std::string::npos);
  }
  CHECK(text.find("\n\n") == std::string::npos);
}

TEST_CASE("what a primary says may be any bytes; a report is ASCII unless it is international (RFC 3464, RFC 6533)") {
  journal::Entry entry = sample();
  Notification n;
  n.reporting_mta = "mx.example.org";
  n.id = "1";
  n.entry = &entry;
  n.recipients = {{"b@example.org", "", "550 5.1.1 Empf\xc3\xa4nger\xff unbekannt\x1b[2J", "5.1.1"},
                  {"c@example.org", "", "it closed the connection", "5.0.0"}};
  n.original = "Subject: hello\r\n";
  std::string text = write_notification(n);
  CHECK(text.find("Diagnostic-Code: smtp; 550 5.1.1 Empf??nger? unbekannt [2J\r\n") != std::string::npos);
  CHECK(text.find("Diagnostic-Code: x-holdfast; it closed the connection\r\n") != std::string::npos);
  CHECK(std::all_of(text.begin(), text.end(), [](char c) { return static_cast<unsigned char>(c) < 128; }));
  n.recipients[0].address = "b\xc3\xa4r@example.org";
  text = write_notification(n);
  CHECK(text.find("Diagnostic-Code: smtp; 550 5.1.1 Empf\xc3\xa4nger") != std::string::npos);
}

TEST_CASE("a status is taken from the reply where it has one") {
  CHECK(status_in("550 5.1.1 no", "5.0.0") == "5.1.1");
  CHECK(status_in("550 no such user", "5.0.0") == "5.0.0");
  CHECK(status_in("", "4.4.7") == "4.4.7");
  CHECK(status_in("554 5.7.26 no", "5.0.0") == "5.7.26");
}

TEST_CASE("only the named gateway's word about SPF is believed") {
  std::string header = "Authentication-Results: gw.example.org;\r\n\tspf=pass smtp.mailfrom=a@example.net\r\nSubject: x\r\n\r\nspf=pass";
  CHECK(has_spf_pass(header, "gw.example.org"));
  CHECK_FALSE(has_spf_pass(header, ""));
  CHECK_FALSE(has_spf_pass(header, "gw.example"));
  CHECK_FALSE(has_spf_pass(header, "other.example.org"));
  CHECK_FALSE(has_spf_pass("Subject: x\r\n\r\nAuthentication-Results: gw.example.org; spf=pass\r\n", "gw.example.org"));
  CHECK_FALSE(has_spf_pass("Authentication-Results: gw.example.org; spf=fail\r\n\r\n", "gw.example.org"));
}
