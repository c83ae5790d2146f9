// JSON, as Holdfast reads and writes it: members in the order in which they were put.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

namespace holdfast::proxy {

using Json = nlohmann::ordered_json;

/// On one line, without its end. Always valid UTF-8: what is not, in mail or in somebody's words, becomes U+FFFD.
inline std::string to_line(const Json& json) { return json.dump(-1, ' ', false, Json::error_handler_t::replace); }

}  // namespace holdfast::proxy
