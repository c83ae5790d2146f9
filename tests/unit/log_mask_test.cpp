#include "proxy/log_mask.h"

#include <catch2/catch.hpp>

using namespace holdfast::proxy;

TEST_CASE("a masked log says of people what follows an event needs, and not who it was") {
  struct Case {
    const char* key;
    const char* value;
    const char* is;
  };
  for (auto [key, value, is] : {
           Case{"client", "203.0.113.77:4711", "203.0.113.0/24"},
           {"client", "[2001:db8:1:2:3:4:5:6]:4711", "2001:db8:1::/48"},
           {"client", "2001:db8:1:2::3", "2001:db8:1::/48"},
           {"client", "unix", "*"},
           {"from", "ada@example.net", "*@example.net"},
           {"from", "\"ada \\\" b@c\"@example.net", "*@example.net"},
           {"from", "", ""},
           {"to", "postmaster", "*"},
           {"person", "j\xc3\xbcrgen@example.org", "*@example.org"},
           {"reply", "550 5.1.1 <bob@example.org>: unknown, says host[203.0.113.7]", "550 5.1.1"},
           {"reply", "250 2.0.0", "250 2.0.0"},
           {"reply", "550 Bob is on leave", "550"},
           {"reply", "450 1.2.3.4 is on a list", "450"},
           {"reply", "250", "250"},
           {"reply", "", ""},
           {"reply", "no answer about bob@example.org", "no answer about *@example.org"},
           {"problem", "<bob@example.org>, \"a b\"@example.org:x@y; @ and @z", "<*@example.org>, *@example.org:*@y; @ and @z"},
           {"problem", "a@b@c", "*@*@c"},
           {"problem", "entry 7 cannot be read", "entry 7 cannot be read"},
           {"address", "127.0.0.1:2526", "127.0.0.1:2526"},
       }) {
    CAPTURE(key, value);
    CHECK(masked(key, value) == is);
  }
}
