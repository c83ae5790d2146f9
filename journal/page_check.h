// A look at those pages of a segment that the next write changes, before LMDB does, which believes what it finds in them: with noise there it
// would write where it must not, in the file and in the process's memory.
#pragma once

#include <string>

#include "journal/result.h"

namespace holdfast::journal {

/// Checks the pages on the way to the segment's last item, and the list of free pages, as LMDB 0.9 lays them out in a file. To be called
/// while nobody writes. A file that is no LMDB database at all passes: opening it tells.
///
/// @return an error when a page cannot be what it has to be (corrupt), or cannot be read
Status check_pages_written_next(const std::string& path);

}  // namespace holdfast::journal
