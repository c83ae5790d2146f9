#include "proxy/people.h"

#include <fmt/format.h>

#include <algorithm>
#include <fstream>
#include <sstream>

#include "proxy/address.h"
#include "proxy/command.h"
#include "proxy/csv.h"
#include "proxy/units.h"

namespace holdfast::proxy {
namespace {

using failover::Directory;
using failover::Source;

bool is_address(const std::string& text) {
  std::optional<Path> path = parse_path(text);
  return path && path->rest.empty() && path->address.find('@') != std::string_view::npos && is_utf8(text);
}

std::vector<std::string> words(const std::string& text) {
  std::istringstream in(text);
  std::vector<std::string> list;
  for (std::string word; in >> word;) list.push_back(word);
  return list;
}

char separator_of(const std::string& heading) {
  if (heading.find(';') != std::string::npos) return ';';
  return heading.find('\t') != std::string::npos ? '\t' : ',';
}

/// @param columns  in capitals; none: the line is an address
Directory::Person person_of(const std::vector<std::string>& columns, const std::vector<std::string>& fields) {
  Directory::Person person;
  person.source = Source::imported;
  person.time_us = journal::now_us();
  if (columns.empty()) person.address = fields.front();
  for (std::size_t i = 0; i < columns.size() && i < fields.size(); ++i) {
    const std::string& column = columns[i];
    if (column == "ADDRESS" || column == "MAIL") person.address = fields[i];
    if (column == "NAME") person.name = fields[i];
    if (column == "TELEPHONE") person.telephone = fields[i];
    if (column == "ALIASES") person.aliases = words(fields[i]);
    if (column == "EXISTS") person.exists = upper(fields[i]) != "NO";
  }
  return person;
}

}  // namespace

Result<std::vector<Directory::Person>> parse_people(const std::string& text, const std::string& name) {
  std::vector<Directory::Person> people;
  std::vector<std::string> columns;
  char separator = ',';
  std::istringstream in(text);
  std::size_t number = 0;
  for (std::string whole; std::getline(in, whole);) {
    ++number;
    const std::string line(csv_line(whole, number == 1));
    if (line.empty() || line.front() == '#') continue;
    auto refuse = [&](const std::string& what) { return Error{ErrorCode::invalid, fmt::format("{}:{}: {}", name, number, what)}; };
    bool is_heading = people.empty() && columns.empty() && line.find('@') == std::string::npos;
    if (is_heading) {
      separator = separator_of(line);
      for (std::string& column : split_csv(line, separator)) columns.push_back(upper(column));
      bool has_address = std::any_of(columns.begin(), columns.end(), [](const std::string& c) { return c == "ADDRESS" || c == "MAIL"; });
      if (!has_address) return refuse("the heading line names no column \"address\"");
      continue;
    }
    Directory::Person person = person_of(columns, columns.empty() ? std::vector{line} : split_csv(line, separator));
    if (!is_address(person.address)) return refuse(fmt::format("\"{}\" is no mail address", person.address));
    for (const std::string& alias : person.aliases)
      if (!is_address(alias)) return refuse(fmt::format("\"{}\" is no mail address", alias));
    people.push_back(std::move(person));
  }
  return people;
}

Result<std::vector<Directory::Person>> read_people_file(const std::string& path) {
  std::ifstream file(path);
  if (!file) return Error{ErrorCode::invalid, fmt::format("{}: cannot be read; it should hold one address a line, or CSV", path)};
  std::ostringstream text;
  text << file.rdbuf();
  return parse_people(text.str(), path);
}

Json people_to_json(const std::vector<Directory::Person>& people) {
  Json list = Json::array();
  for (const Directory::Person& one : people)
    list.push_back({{"address", one.address},
                    {"exists", one.exists},
                    {"source", failover::to_string(one.source)},
                    {"time", format_time(one.time_us)},
                    {"reply", one.reply},
                    {"name", one.name},
                    {"telephone", one.telephone},
                    {"aliases", one.aliases},
                    {"members", one.members}});
  return list;
}

Json address_book(const std::vector<Directory::Person>& people) {
  Json list = Json::array();
  for (const Directory::Person& one : people)
    if (one.exists)
      list.push_back(
          {{"address", one.address}, {"name", one.name}, {"telephone", one.telephone}, {"aliases", one.aliases}, {"is_group", !one.members.empty()}});
  return list;
}

std::vector<Directory::Person> people_from_json(const Json& people) {
  std::vector<Directory::Person> list;
  for (const auto& one : people) {
    Directory::Person person;
    person.address = one.at("address").get<std::string>();
    person.exists = one.value("exists", true);
    person.source = failover::source_of(one.value("source", std::string()));
    person.time_us = journal::now_us();
    person.reply = one.value("reply", std::string());
    person.name = one.value("name", std::string());
    person.telephone = one.value("telephone", std::string());
    person.aliases = one.value("aliases", std::vector<std::string>());
    person.members = one.value("members", std::vector<std::string>());
    list.push_back(std::move(person));
  }
  return list;
}

}  // namespace holdfast::proxy
