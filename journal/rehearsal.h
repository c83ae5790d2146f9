// Rehearsal: LMDB believes what it finds in a page. Where that is noise, writing may ruin the process's memory, which nothing in the process
// can catch (fault_guard.h catches what reading does). So it is done in another process first.
#pragma once

#include <functional>

namespace holdfast::journal {

/// Does it in a child process; what it changes in files stays. For processes that have no other threads, and none of those files open.
///
/// @return whether the child came to its end; true when the system gives no child
bool comes_through(const std::function<void()>& action);

}  // namespace holdfast::journal
