// Base64 (RFC 4648), by GLib.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace holdfast::proxy {

std::string encode_base64(std::string_view bytes);
/// Nothing for what is empty, or not base64 from end to end.
std::optional<std::string> decode_base64(const std::string& base64);

}  // namespace holdfast::proxy
