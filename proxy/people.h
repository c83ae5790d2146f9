// People of the directory, as files and JSON have them.
#pragma once

#include <string>
#include <vector>

#include "failover/directory.h"
#include "journal/record.h"
#include "proxy/json.h"

namespace holdfast::proxy {

/// Reads one address a line, or CSV with a heading line that names the columns: address (or mail), name, telephone, aliases
/// (blank-separated), exists (yes or no). Empty lines and lines that begin with # are skipped. Errors name the line.
Result<std::vector<failover::Directory::Person>> parse_people(const std::string& text, const std::string& name);
Result<std::vector<failover::Directory::Person>> read_people_file(const std::string& path);

Json people_to_json(const std::vector<failover::Directory::Person>& people);
/// What colleagues see of each other: {"address", "name", "telephone", "aliases", "is_group"} of all who exist.
Json address_book(const std::vector<failover::Directory::Person>& people);
/// The inverse of people_to_json(); confirmed now. Throws nlohmann's exception when it is something else.
std::vector<failover::Directory::Person> people_from_json(const Json& people);

}  // namespace holdfast::proxy
