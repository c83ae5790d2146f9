// YAML as the configuration reads it: values that know what they are called, and sections that refuse keys
// nobody asked for.
#pragma once

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <yaml-cpp/yaml.h>

#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "proxy/command.h"
#include "proxy/network.h"
#include "proxy/units.h"

namespace holdfast::proxy {

/// Ends the parsing with a message; caught in parse_config() and nowhere else.
struct Refused {
  std::string message;
};

/// A YAML node together with what it is called, for messages.
class Value {
 public:
  Value(YAML::Node node, std::string file, std::string path) : node_(std::move(node)), file_(std::move(file)), path_(std::move(path)) {}

  [[noreturn]] void refuse(const std::string& why) const {
    throw Refused{fmt::format("{}:{}: {}{}{}", file_, node_.Mark().line + 1, path_, path_.empty() ? "" : ": ", why)};
  }

  bool is_set() const { return node_.IsDefined() && !node_.IsNull(); }

  std::string text() const {
    if (!node_.IsScalar()) refuse("write one value here");
    return node_.Scalar();
  }

  std::string non_empty() const {
    std::string value = text();
    if (value.empty()) refuse("must not be empty");
    return value;
  }

  Duration duration() const {
    std::optional<Duration> value = parse_duration(text());
    if (!value) refuse(fmt::format("\"{}\" is no duration; write a number with a unit, such as 500ms, 5s, 2m, 1h or 14d", text()));
    return *value;
  }

  Duration duration_of_at_least(Duration least) const {
    Duration value = duration();
    if (value < least) refuse(fmt::format("must be at least {}", to_text(least)));
    return value;
  }

  std::uint64_t size() const {
    std::optional<std::uint64_t> value = parse_size(text());
    if (!value || *value == 0) refuse(fmt::format("\"{}\" is no size; write a number with a unit, such as 64KiB, 50MiB or 1GiB", text()));
    return *value;
  }

  bool yes_or_no() const { return one_of<bool>({{"true", true}, {"false", false}}); }

  std::uint64_t count(std::uint64_t least) const {
    std::optional<std::uint64_t> value = parse_number(text());
    if (!value || *value < least) refuse(fmt::format("\"{}\" is no whole number of at least {}", text(), least));
    return *value;
  }

  HostPort host_port() const {
    std::optional<HostPort> value = parse_host_port(text());
    if (!value || value->port == 0)
      refuse(text().find(':') == std::string::npos
                 ? fmt::format("\"{0}\" has no port; write \"{0}:25\"", text())
                 : fmt::format("\"{}\" is no host and port; write \"192.0.2.1:25\" or \"[2001:db8::1]:25\"", text()));
    return *value;
  }

  template <class Enum>
  Enum one_of(const std::vector<std::pair<std::string, Enum>>& choices) const {
    std::vector<std::string> names;
    for (const auto& [name, value] : choices) {
      if (name == text()) return value;
      names.push_back(name);
    }
    refuse(fmt::format("\"{}\" is none of: {}", text(), fmt::join(names, ", ")));
  }

  std::vector<Value> list() const {
    if (!node_.IsSequence()) refuse("write a list here");
    std::vector<Value> values;
    for (std::size_t i = 0; i < node_.size(); ++i) values.emplace_back(node_[i], file_, fmt::format("{}[{}]", path_, i));
    return values;
  }

  const YAML::Node& node() const { return node_; }
  const std::string& file() const { return file_; }
  const std::string& path() const { return path_; }

 private:
  YAML::Node node_;
  std::string file_, path_;
};

/// A map whose keys are all known: asks for each, then refuses what was not asked for.
class Section {
 public:
  explicit Section(const Value& value) : value_(value) {
    if (value.is_set() && !value.node().IsMap()) value.refuse("write keys and values here");
  }

  Value at(const std::string& key) {
    asked_.insert(key);
    std::string path = value_.path().empty() ? key : value_.path() + "." + key;
    YAML::Node found = value_.is_set() ? value_.node()[key] : YAML::Node(YAML::NodeType::Undefined);
    return {found, value_.file(), path};
  }

  /// Calls take with the value when the key is there.
  template <class Take>
  void read(const std::string& key, Take take) {
    Value value = at(key);
    if (value.is_set()) take(value);
  }

  Value required(const std::string& key) {
    Value value = at(key);
    if (!value.is_set()) value_.refuse(fmt::format("{} is missing", value.path()));
    return value;
  }

  void finish() const {
    if (!value_.is_set()) return;
    std::set<std::string> seen;
    for (const auto& item : value_.node()) {
      std::string key = item.first.Scalar();
      bool is_first = seen.insert(key).second;
      if (is_first && asked_.count(key)) continue;
      std::string path = value_.path().empty() ? key : value_.path() + "." + key;
      Value(item.first, value_.file(), path)
          .refuse(is_first ? fmt::format("there is no such key; known here: {}", fmt::join(asked_, ", ")) : "this key is here twice");
    }
  }

 private:
  Value value_;
  std::set<std::string> asked_;
};

}  // namespace holdfast::proxy
