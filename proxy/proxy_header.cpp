#include "proxy/proxy_header.h"

#include <arpa/inet.h>
#include <fmt/format.h>

#include <cstdint>
#include <cstring>
#include <vector>

#include "proxy/command.h"

namespace holdfast::proxy {
namespace {

constexpr std::string_view signature{"\r\n\r\n\0\r\nQUIT\n", 12};
constexpr std::size_t max_text_header = 107;
constexpr std::size_t max_binary_header = 4096;

/// An IPv4 address that is written as an IPv6 one ("::ffff:192.0.2.7"), as of a socket that takes both, is IPv4.
std::string address_text(int family, const char* bytes) {
  constexpr std::string_view mapped{"\0\0\0\0\0\0\0\0\0\0\xff\xff", 12};
  bool is_mapped = family == AF_INET6 && std::string_view(bytes, 16).starts_with(mapped);
  char text[INET6_ADDRSTRLEN];
  return inet_ntop(is_mapped ? AF_INET : family, is_mapped ? bytes + mapped.size() : bytes, text, sizeof text) ? text : "";
}

int port_of(const char* bytes) { return static_cast<unsigned char>(bytes[0]) << 8 | static_cast<unsigned char>(bytes[1]); }

/// As it is written usually; empty when it is none.
std::string usual_address(int family, const std::string& text) {
  char bytes[16];
  return inet_pton(family, text.c_str(), bytes) == 1 ? address_text(family, bytes) : "";
}

/// "PROXY TCP4 192.0.2.1 192.0.2.2 1234 25\r\n"
ProxyParse parse_text(std::string_view input, ProxyHeader& header, std::size_t& consumed) {
  std::size_t end = input.substr(0, max_text_header).find("\r\n");
  if (end == std::string_view::npos) return input.size() < max_text_header ? ProxyParse::incomplete : ProxyParse::malformed;
  std::vector<std::string> words(1);
  for (char c : input.substr(0, end)) {
    if (c == ' ')
      words.emplace_back();
    else
      words.back() += c;
  }
  consumed = end + 2;
  if (words.size() >= 2 && words[1] == "UNKNOWN") {
    header.is_local = true;
    return ProxyParse::complete;
  }
  if (words.size() != 6 || (words[1] != "TCP4" && words[1] != "TCP6")) return ProxyParse::malformed;
  int family = words[1] == "TCP4" ? AF_INET : AF_INET6;
  auto source_port = parse_number(words[4]), destination_port = parse_number(words[5]);
  std::string source = usual_address(family, words[2]), destination = usual_address(family, words[3]);
  if (source.empty() || destination.empty() || !source_port || *source_port > 65535 || !destination_port || *destination_port > 65535)
    return ProxyParse::malformed;
  header.source = {source, static_cast<int>(*source_port)};
  header.destination = {destination, static_cast<int>(*destination_port)};
  return ProxyParse::complete;
}

ProxyParse parse_binary(std::string_view input, ProxyHeader& header, std::size_t& consumed) {
  if (input.size() < 16) return ProxyParse::incomplete;
  auto version_command = static_cast<unsigned char>(input[12]);
  auto family_protocol = static_cast<unsigned char>(input[13]);
  auto size = static_cast<std::size_t>(port_of(input.data() + 14));
  if (version_command >> 4 != 2 || (version_command & 15) > 1 || size > max_binary_header) return ProxyParse::malformed;
  if (input.size() < 16 + size) return ProxyParse::incomplete;
  const char* body = input.data() + 16;
  consumed = 16 + size;
  if ((version_command & 15) == 0 || family_protocol >> 4 == 0) {
    header.is_local = true;
    return ProxyParse::complete;
  }
  if (family_protocol == 0x11 && size >= 12) {
    header.source = {address_text(AF_INET, body), port_of(body + 8)};
    header.destination = {address_text(AF_INET, body + 4), port_of(body + 10)};
    return ProxyParse::complete;
  }
  if (family_protocol == 0x21 && size >= 36) {
    header.source = {address_text(AF_INET6, body), port_of(body + 32)};
    header.destination = {address_text(AF_INET6, body + 16), port_of(body + 34)};
    return ProxyParse::complete;
  }
  return ProxyParse::malformed;
}

}  // namespace

std::string to_string(const Endpoint& endpoint) {
  bool is_v6 = endpoint.address.find(':') != std::string::npos;
  return is_v6 ? fmt::format("[{}]:{}", endpoint.address, endpoint.port) : fmt::format("{}:{}", endpoint.address, endpoint.port);
}

ProxyParse parse_proxy_header(std::string_view input, ProxyHeader& header, std::size_t& consumed) {
  constexpr std::string_view text = "PROXY ";
  if (input.starts_with(text)) return parse_text(input, header, consumed);
  if (input.starts_with(signature)) return parse_binary(input, header, consumed);
  bool may_become_one = text.starts_with(input) || signature.starts_with(input);
  return may_become_one ? ProxyParse::incomplete : ProxyParse::malformed;
}

std::string make_proxy_header(const Endpoint& source, const Endpoint& destination) {
  std::string header(signature);
  char from[16], to[16];
  int family = AF_INET;
  if (inet_pton(AF_INET, source.address.c_str(), from) != 1 || inet_pton(AF_INET, destination.address.c_str(), to) != 1) {
    family = AF_INET6;
    if (inet_pton(AF_INET6, source.address.c_str(), from) != 1 || inet_pton(AF_INET6, destination.address.c_str(), to) != 1)
      return header + std::string("\x20\x00\x00\x00", 4);
  }
  std::size_t size = family == AF_INET ? 4 : 16;
  header += '\x21';
  header += family == AF_INET ? '\x11' : '\x21';
  auto add_16 = [&header](std::size_t value) {
    header += static_cast<char>(value >> 8);
    header += static_cast<char>(value & 255);
  };
  add_16(2 * size + 4);
  header.append(from, size);
  header.append(to, size);
  add_16(static_cast<std::size_t>(source.port));
  add_16(static_cast<std::size_t>(destination.port));
  return header;
}

}  // namespace holdfast::proxy
