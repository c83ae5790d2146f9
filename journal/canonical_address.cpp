#include "journal/canonical_address.h"

#include <idn2.h>

#include <algorithm>
#include <memory>

#include "journal/catalog.h"

namespace holdfast::journal {
namespace {

struct FreeName {
  void operator()(char* name) const { ::idn2_free(name); }
};

bool is_ascii(std::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) { return static_cast<unsigned char>(c) < 128; });
}

}  // namespace

std::string canonical_domain(std::string_view domain) {
  std::string lower = normalise(domain);
  if (is_ascii(lower) || lower.find('\0') != std::string::npos) return lower;
  char* converted = nullptr;
  int result = ::idn2_to_ascii_8z(lower.c_str(), &converted, IDN2_NFC_INPUT | IDN2_NONTRANSITIONAL);
  std::unique_ptr<char, FreeName> name(converted);
  return result == IDN2_OK ? std::string(name.get()) : lower;
}

std::string canonical_address(std::string_view address) {
  std::string lower = normalise(address);
  std::size_t at = lower.rfind('@');
  return at == std::string::npos || is_ascii(lower) ? lower : lower.substr(0, at + 1) + canonical_domain(std::string_view(lower).substr(at + 1));
}

}  // namespace holdfast::journal
