// LIST and LSUB: what they ask for, and which folders they show (RFC 3501 6.3.8, 6.3.9; RFC 5258, 5819, 6154). Sans I/O.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "proxy/imap_command.h"

namespace holdfast::proxy {

struct ListRequest {
  std::vector<std::string> patterns;                     ///< with the reference before each
  bool asks_for_separator = false;                       ///< only: LIST "" ""
  bool is_extended = false;                              ///< RFC 5258: the answer may say what older programs do not know
  bool wants_subscribed = false, wants_special = false;  ///< only these
  bool wants_parents = false;                            ///< RECURSIVEMATCH: those above such a folder too
  bool shows_subscribed = false;                         ///< in the answer
  std::vector<std::string> status_items;                 ///< RFC 5819: STATUS with each
};
/// To the end of the command. An option that is not known makes it malformed (RFC 5258 3).
std::optional<ListRequest> parse_list(ImapText& text);
std::optional<ListRequest> parse_lsub(ImapText& text);
/// "(MESSAGES UNSEEN)", in capitals; nothing where one is not known.
std::optional<std::vector<std::string>> parse_status_items(ImapText& text);

/// A name that folders have, or that lies above folders, or is subscribed and has no folder any more.
struct ListedName {
  std::string name;  ///< UTF-8
  bool exists = true;
  bool is_subscribed = false;
  std::string use = {};             ///< "\\Sent" and the like, or nothing
  bool has_children = false;        ///< folders below it
  bool has_selected_below = false;  ///< of those that the request selects
};
/// Of all names those that the request means, INBOX first, then in their order. Names above a folder are added where there is none.
std::vector<ListedName> chosen_names(const ListRequest& request, const std::vector<ListedName>& all);
/// What the answer says of one, from its attributes on.
std::string listed(const ListRequest& request, const ListedName& name);

}  // namespace holdfast::proxy
