// Lines of CSV (RFC 4180), as people and spreadsheets write them. Sans I/O.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace holdfast::proxy {

/// The fields of a line: some may be quoted, where a quote within is doubled. Blanks around a field that is not quoted go.
std::vector<std::string> split_csv(std::string_view line, char separator);

/// A line without what stands around it in a file: its CR, and, of the first, the mark that some programs begin a UTF-8 file with.
std::string_view csv_line(std::string_view line, bool is_first);

}  // namespace holdfast::proxy
