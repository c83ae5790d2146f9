// Where signed heads are shown to the world, so that nobody can put an older journal in this one's place
// unseen.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "journal/result.h"

namespace holdfast::proxy {

/// A function that shows a head line at each of the places: "syslog", an http:// or https:// URL (POST,
/// text/plain), or a file to append to. It blocks, and says which place failed. Empty when there are no
/// places.
std::function<Status(const std::string& line)> head_publisher(std::vector<std::string> places);

}  // namespace holdfast::proxy
