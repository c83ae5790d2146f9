// Sorting and threading messages (RFC 5256). Sans I/O.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "proxy/imap_command.h"
#include "proxy/imap_search.h"

namespace holdfast::proxy {

/// What SORT and THREAD look at.
struct SortFacts {
  std::uint32_t number = 0;  ///< what is answered: a sequence number or a UID
  std::int64_t arrival_us = 0, sent_s = 0;
  std::uint64_t size = 0;
  std::string subject, from, to, cc;  ///< folded; base subject, first mailboxes
  bool is_reply = false;
  std::string message_id;
  std::vector<std::string> references;
};
SortFacts sort_facts(ReadMessage& message, std::uint32_t number);
void sort_messages(std::vector<SortFacts>& all, const std::vector<std::pair<SortCommand::By, bool>>& criteria);
/// THREAD=REFERENCES: "(1)(2 3 (4)(5))".
std::string thread_by_references(std::vector<SortFacts> all);
/// THREAD=ORDEREDSUBJECT.
std::string thread_by_subject(std::vector<SortFacts> all);

}  // namespace holdfast::proxy
