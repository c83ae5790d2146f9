// A balancer's first bytes: a complete header was incomplete one byte before, and one made from it says the same.
#include "proxy/proxy_header.h"

#include "tests/fuzz/fuzz.h"

using namespace holdfast::proxy;

void fuzz(std::string_view input) {
  ProxyHeader header;
  std::size_t consumed = 0;
  if (parse_proxy_header(input, header, consumed) != ProxyParse::complete) return;
  REQUIRE_TRUE(consumed <= input.size());
  if (header.is_local) return;
  ProxyHeader again;
  std::string made = make_proxy_header(header.source, header.destination);
  REQUIRE_TRUE(parse_proxy_header(made, again, consumed) == ProxyParse::complete);
  REQUIRE_TRUE(again.is_local || (again.source.port == header.source.port && again.destination.port == header.destination.port));
}
