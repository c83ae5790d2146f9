// What a damaged page, or a disk that cannot read one, does to a program that looks at it through a memory map: a signal, or LMDB's own
// assertion. Both become an error code here, so that they end one answer and not the process.
#pragma once

#include <lmdb.h>

#include <csetjmp>

namespace holdfast::journal {

/// Makes faults and assertions in an environment's operations return, when they are guarded. Once for each environment.
void return_faults_of(MDB_env* environment);

/// Where a guarded operation of this thread goes when it faults. Null when there is none: then the fault ends the process, as ever.
extern thread_local sigjmp_buf* fault_return;  // NOLINT: the signal handler's only way to find it

/// Looks at every page of a value, so that whoever reads it later finds it readable. Returns MDB_CORRUPTED when its size is absurd.
int touch(const MDB_val& value);

/// Does what calls LMDB and looks at its pages, and nothing else: no destructor may be skipped. Returns its code, or MDB_CORRUPTED when it
/// faulted; a write transaction must be aborted then.
template <class Operation>
int guarded(Operation operation) {
  sigjmp_buf here;
  sigjmp_buf* const outer = fault_return;
  fault_return = &here;
  // No variable that changes in between may count after a jump: the compiler may keep a step's result in its place.
  if (sigsetjmp(here, 0) != 0) {
    fault_return = outer;
    return MDB_CORRUPTED;
  }
  int code = operation();
  fault_return = outer;
  return code;
}

}  // namespace holdfast::journal
