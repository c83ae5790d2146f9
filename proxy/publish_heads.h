// The places to which signed heads are published (journal.publish_heads).
#pragma once

#include <string>
#include <vector>

#include "journal/witnesses.h"

namespace holdfast::proxy {

/// A witness for each of the places: "syslog", an http:// or https:// URL (POST, text/plain; 30 s at most), or a file to append to.
std::vector<journal::Witness> head_witnesses(const std::vector<std::string>& places);

}  // namespace holdfast::proxy
