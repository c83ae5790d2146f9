#include "proxy/address.h"

#include <catch2/catch.hpp>

using namespace holdfast::proxy;

TEST_CASE("paths that mean one thing are taken") {
  for (auto [text, address] : {std::pair("<a@b.c>", "a@b.c"),
                               {"<>", ""},
                               {"<\"a b\"@c>", "\"a b\"@c"},
                               {"<\"a\\\">b\"@c>", "\"a\\\">b\"@c"},
                               {"<a@[192.0.2.1]>", "a@[192.0.2.1]"},
                               {"<a@[IPv6:2001:db8::1]>", "a@[IPv6:2001:db8::1]"},
                               {"<postmaster>", "postmaster"},
                               {"<a..b@c>", "a..b@c"},
                               {"<j\xc3\xbcrgen@b\xc3\xbc\x63her.example>", "j\xc3\xbcrgen@b\xc3\xbc\x63her.example"},
                               {" a@b", "a@b"},
                               {"<@a.example:b@c>", "b@c"},
                               {"<@a,@[192.0.2.1]:\"x\"@c>", "\"x\"@c"}}) {
    CAPTURE(text);
    auto path = parse_path(text);
    REQUIRE(path);
    CHECK(path->address == address);
    CHECK(path->rest.empty());
  }
}

TEST_CASE("paths that could be read in two ways are refused") {
  for (auto text : {"",          "<",        "<a",     "<a@b",       "a>",          "<a@b>>",  "<<a@b>",  "<a@b><c@d>",  "<a@b>c",  "<a b@c>",
                    "<a@b c>",   "<@a,@b:>", "<@a:b>", "<@a,b:c@d>", "<@a,@b c@d>", "<@:a@b>", "@a:b@c",  "<@a:@b:c@d>", "<a@b@c>", "<\"a@b>",
                    "<a\\@b@c>", "<a@[1>",   "<a@>",   "<@b>",       "<a,b@c>",     "<a;b@c>", "<a:b@c>", "<\"a\"b@c>"}) {
    CAPTURE(text);
    CHECK_FALSE(parse_path(text));
  }
}

TEST_CASE("UTF-8 is told from what only looks like it") {
  CHECK(is_utf8("plain"));
  CHECK(is_utf8("\xc3\xbc \xe2\x82\xac \xf0\x9f\x93\xa7"));
  for (auto bad : {"\xff", "\xc3", "\xc0\xaf", "\xe0\x80\xaf", "\xed\xa0\x80", "\xf4\x90\x80\x80", "\xf8\x88\x80\x80\x80", "\x80"})
    CHECK_FALSE(is_utf8(bad));
}

TEST_CASE("an address's domain") {
  CHECK(domain_of("a@b.c") == "b.c");
  CHECK(domain_of("\"a@x\"@b.c") == "b.c");
  CHECK(domain_of("postmaster").empty());
}

TEST_CASE("what can be a domain, and what cannot (RFC 5321 4.1.2)") {
  std::string longest_label(63, 'a'), longest = longest_label + "." + longest_label + "." + longest_label + "." + std::string(63, 'b');
  for (const std::string& good :
       {std::string("example.org"), std::string("localhost"), std::string("example.org."), std::string("exa_mple.org"), std::string("1.example.org"),
        std::string("xn--mller-kva.de"), std::string("m\xc3\xbcller.de"), std::string("[192.0.2.1]"), std::string("[IPv6:::1]"), longest}) {
    CAPTURE(good);
    CHECK(is_domain(good));
  }
  for (const std::string& bad : {std::string(), std::string("."), std::string(".example.org"), std::string("example..org"),
                                 std::string("example.org.."), std::string("-example.org"), std::string("example-.org"), std::string("example.org-"),
                                 longest_label + "a.org", longest + "b", longest + ".b"}) {
    CAPTURE(bad);
    CHECK_FALSE(is_domain(bad));
  }
}
