#include "journal/witnesses.h"

#include <fmt/format.h>

#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <map>

#include "journal/files.h"
#include "journal/head.h"

namespace holdfast::journal {
namespace {

/// The last head that each witness was shown: a line each, of the segment's number and the place.
class Shown {
 public:
  explicit Shown(const std::string& journal) : path_(head_folder(journal) + "/published") {
    std::ifstream file(path_);
    for (std::string line; std::getline(file, line);) {
      std::size_t blank = line.find(' ');
      auto number = static_cast<std::uint32_t>(std::strtoul(line.c_str(), nullptr, 10));
      // A number alone is of a time when all were shown the same.
      if (blank == std::string::npos)
        to_all_ = number;
      else
        last_[line.substr(blank + 1)] = number;
    }
  }

  std::uint32_t to(const std::string& place) const {
    auto found = last_.find(place);
    return found == last_.end() ? to_all_ : found->second;
  }

  Status note(const std::string& place, std::uint32_t number, const std::vector<Witness>& witnesses) {
    last_[place] = number;
    std::string lines;
    for (const Witness& one : witnesses) lines += fmt::format("{} {}\n", to(one.place), one.place);
    return write_file(path_, lines);
  }

 private:
  const std::string path_;
  std::map<std::string, std::uint32_t> last_;
  std::uint32_t to_all_ = 0;
};

}  // namespace

Status show_heads(const std::string& journal, const std::vector<Witness>& witnesses, const std::function<bool()>& goes_on) {
  if (witnesses.empty()) return {};
  Shown shown(journal);
  std::vector<std::uint32_t> heads = list_heads(journal);
  Status result;
  for (const Witness& witness : witnesses) {
    for (std::uint32_t number : heads) {
      if (number <= shown.to(witness.place)) continue;
      if (!goes_on()) return result;
      auto line = read_head(journal, number);
      Status done = line ? witness.show(*line) : Status(line.error());
      if (done) done = shown.note(witness.place, number, witnesses);
      if (done) continue;
      if (result) result = done;
      break;
    }
  }
  return result;
}

}  // namespace holdfast::journal
