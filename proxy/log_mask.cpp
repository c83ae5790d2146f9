#include "proxy/log_mask.h"

#include <arpa/inet.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <cstdint>

#include "proxy/address.h"
#include "proxy/network.h"

namespace holdfast::proxy {
namespace {

std::string network_of(const std::string& host) {
  std::array<std::uint8_t, 16> bytes{};
  std::array<char, INET6_ADDRSTRLEN> text{};
  for (auto [family, size, kept] : {std::array{AF_INET, 4, 3}, std::array{AF_INET6, 16, 6}}) {
    if (::inet_pton(family, host.c_str(), bytes.data()) != 1) continue;
    std::fill(bytes.begin() + kept, bytes.begin() + size, std::uint8_t{0});
    return std::string(::inet_ntop(family, bytes.data(), text.data(), text.size())) + "/" + std::to_string(8 * kept);
  }
  return "*";
}

bool is_digit(char c) { return std::isdigit(static_cast<unsigned char>(c)) != 0; }

/// How much of text is a code: digits, with dots between where there are any.
std::size_t code_at(std::string_view text) {
  return static_cast<std::size_t>(std::find_if_not(text.begin(), text.end(), [](char c) { return is_digit(c) || c == '.'; }) - text.begin());
}

bool is_reply(std::string_view text) { return code_at(text) == 3 && (text.size() == 3 || text[3] == ' ' || text[3] == '-'); }

std::string codes_of(std::string_view reply) {
  std::string_view text = reply.substr(std::min<std::size_t>(4, reply.size()));
  std::size_t enhanced = code_at(text);
  bool has_enhanced = std::count(text.begin(), text.begin() + static_cast<std::ptrdiff_t>(enhanced), '.') == 2 && text.find_first_of("245") == 0;
  return std::string(reply.substr(0, has_enhanced ? 4 + enhanced : 3));
}

/// Where the local part begins that ends before the at sign at at.
std::size_t begin_of_local_part(std::string_view text, std::size_t at) {
  if (at > 0 && text[at - 1] == '"') {
    for (std::size_t i = at - 1; i-- > 0;)
      if (text[i] == '"' && (i == 0 || text[i - 1] != '\\')) return i;
  }
  std::size_t before = text.substr(0, at).find_last_of(" \t\r\n<>()[],;:\"@");
  return before == std::string_view::npos ? 0 : before + 1;
}

std::string without_local_parts(std::string_view text) {
  std::string rest;
  std::size_t done = 0;
  for (std::size_t at = text.find('@'); at != std::string_view::npos; at = text.find('@', at + 1)) {
    std::size_t begin = std::max(begin_of_local_part(text, at), done);
    rest += text.substr(done, begin - done);
    if (begin < at) rest += '*';
    done = at;
  }
  return rest += text.substr(done);
}

}  // namespace

std::string masked(std::string_view key, std::string_view value) {
  if (key == "client") {
    auto client = parse_host_port(value);
    return network_of(client ? client->host : std::string(value));
  }
  if (key == "reply" && is_reply(value)) return codes_of(value);
  if ((key == "from" || key == "to" || key == "person") && !value.empty()) {
    std::string_view domain = domain_of(value);
    return domain.empty() ? "*" : "*@" + std::string(domain);
  }
  return without_local_parts(value);
}

}  // namespace holdfast::proxy
