#include "proxy/csv.h"

#include <catch2/catch.hpp>

using namespace holdfast::proxy;
using Fields = std::vector<std::string>;

TEST_CASE("a line of CSV is cut at its separators, but not within quotes") {
  CHECK(split_csv("a@b,secret", ',') == Fields{"a@b", "secret"});
  CHECK(split_csv(" a , b c ,", ',') == Fields{"a", "b c", ""});
  CHECK(split_csv("", ',') == Fields{""});
  CHECK(split_csv(R"("a, b",c)", ',') == Fields{"a, b", "c"});
  CHECK(split_csv(R"(a; "say ""no""" ;b)", ';') == Fields{"a", "say \"no\"", "b"});
  CHECK(split_csv(R"(a," blanks stay ")", ',') == Fields{"a", " blanks stay "});
  CHECK(split_csv(R"(O"Brien,x)", ',') == Fields{"O\"Brien", "x"});
  CHECK(split_csv(R"("never ended,x)", ',') == Fields{"never ended,x"});
  CHECK(split_csv(R"("")", ',') == Fields{""});
}

TEST_CASE("what programs put around a line of a file goes") {
  CHECK(csv_line("\xef\xbb\xbf"
                 "address\r",
                 true) == "address");
  CHECK(csv_line("\xef\xbb\xbf"
                 "x",
                 false) ==
        "\xef\xbb\xbf"
        "x");
  CHECK(csv_line("", true).empty());
}
