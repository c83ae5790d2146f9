// Recovery: what the process before left undone, because it was killed or the disk refused, is done at the start.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "journal/catalog.h"
#include "journal/notepad.h"
#include "journal/writer.h"

namespace holdfast::journal {

class Journal;

struct TakenUp {
  std::unique_ptr<Notepad> notepad;     ///< never null
  std::vector<SealedRecord> unwritten;  ///< what stands on it and is for the writer, once the disk takes it
};

/// Opens the notepad; what was on its way into the log comes into its newest segment, whose tail moves on.
/// @param numbers  of all segments, ascending
TakenUp take_up_notepad(const std::string& path, const KeyRing& keys, const std::vector<std::uint32_t>& numbers, const Segment& newest,
                        Segment::Tail& tail, const Writer::OnEvent& on_event);

/// What the disk refused is handed to the writer, which tries again until the disk takes it. Before anything else is submitted.
void submit_unwritten(const TakenUp& taken_up, Writer& writer);

/// Entries that have no outcome, although no session of theirs can be left, get one.
void abandon_unsettled(const Catalog& catalog, Writer& writer, const Writer::OnEvent& on_event);

/// Held entries that were sent whole before the last stop, and of whose answer nothing is known, are marked as possible duplicates: they
/// will be sent again.
void mark_unanswered(Journal& journal, Notepad& notepad, const Writer::OnEvent& on_event);

}  // namespace holdfast::journal
