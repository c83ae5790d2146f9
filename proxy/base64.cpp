#include "proxy/base64.h"

#include "proxy/late_glib.h"

namespace holdfast::proxy {

std::string encode_base64(std::string_view bytes) {
  char* text = g_base64_encode(reinterpret_cast<const guchar*>(bytes.data()), bytes.size());
  std::string encoded(text);
  g_free(text);
  return encoded;
}

std::optional<std::string> decode_base64(const std::string& base64) {
  bool is_base64 = !base64.empty() && base64.size() % 4 == 0 &&
                   base64.find_first_not_of("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=") == std::string::npos;
  if (!is_base64) return std::nullopt;
  gsize size = 0;
  guchar* bytes = g_base64_decode(base64.c_str(), &size);
  std::string plain(reinterpret_cast<char*>(bytes), size);
  g_free(bytes);
  return plain;
}

}  // namespace holdfast::proxy
