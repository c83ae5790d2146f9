// Witnesses: places outside of the journal that are shown each signed head, so that nobody can put an older journal in this one's place
// unseen.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "journal/result.h"

namespace holdfast::journal {

struct Witness {
  std::string place;                                    ///< its name; what it was shown is remembered under it
  std::function<Status(const std::string& line)> show;  ///< may block; an error is tried again
};

/// Shows each witness the heads that it has not been shown, in order, each once. One that cannot be reached takes none from the others, and
/// one that is new is shown all. Ends early where goes_on says no. Returns the first problem. One caller at a time.
Status show_heads(const std::string& journal, const std::vector<Witness>& witnesses, const std::function<bool()>& goes_on);

}  // namespace holdfast::journal
