#include "proxy/csv.h"

#include <algorithm>

#include "proxy/blanks.h"

namespace holdfast::proxy {

std::vector<std::string> split_csv(std::string_view line, char separator) {
  std::vector<std::string> fields;
  for (;;) {
    std::size_t begin = line.find_first_not_of(' ');
    bool is_quoted = begin != std::string_view::npos && line[begin] == '"';
    if (!is_quoted) {
      std::size_t end = line.find(separator);
      fields.emplace_back(trimmed(line.substr(0, end), " "));
      if (end == std::string_view::npos) return fields;
      line.remove_prefix(end + 1);
      continue;
    }
    std::string field;
    std::size_t at = begin + 1;
    for (; at < line.size(); ++at) {
      bool is_doubled = line[at] == '"' && at + 1 < line.size() && line[at + 1] == '"';
      if (line[at] == '"' && !is_doubled) break;
      at += is_doubled;
      field += line[at];
    }
    fields.push_back(std::move(field));
    std::size_t end = line.find(separator, std::min(at, line.size()));
    if (end == std::string_view::npos) return fields;
    line.remove_prefix(end + 1);
  }
}

std::string_view csv_line(std::string_view line, bool is_first) {
  constexpr std::string_view mark = "\xef\xbb\xbf";
  if (is_first && line.starts_with(mark)) line.remove_prefix(mark.size());
  if (line.ends_with('\r')) line.remove_suffix(1);
  return line;
}

}  // namespace holdfast::proxy
