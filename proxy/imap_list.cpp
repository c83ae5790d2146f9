#include "proxy/imap_list.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <set>

#include "failover/mailbox.h"
#include "proxy/fold.h"
#include "proxy/imap_format.h"
#include "proxy/mime.h"

namespace holdfast::proxy {
namespace {

/// "*" is anything, "%" anything within a level.
bool fits(std::string_view name, std::string_view pattern) {
  // The last star seen is where another try may begin: no more than quadratic.
  std::size_t n = 0, p = 0, star = std::string_view::npos, star_n = 0;
  while (n < name.size() || p < pattern.size()) {
    if (p < pattern.size() && (pattern[p] == '*' || pattern[p] == '%')) {
      star = p++;
      star_n = n;
      continue;
    }
    if (p < pattern.size() && n < name.size() && pattern[p] == name[n]) {
      ++p;
      ++n;
      continue;
    }
    bool may_take_more = star != std::string_view::npos && star_n < name.size() && (pattern[star] == '*' || name[star_n] != '/');
    if (!may_take_more) return false;
    n = ++star_n;
    p = star + 1;
  }
  return true;
}

bool fits(const ListRequest& request, const std::string& name) {
  std::string encoded = encode_mailbox_name(name);
  return std::any_of(request.patterns.begin(), request.patterns.end(), [&](const std::string& pattern) { return fits(encoded, pattern); });
}

bool selects(const ListRequest& request) { return request.wants_subscribed || request.wants_special; }

bool is_selected(const ListRequest& request, const ListedName& name) {
  return selects(request) && (!request.wants_subscribed || name.is_subscribed) && (!request.wants_special || !name.use.empty());
}

/// "(SUBSCRIBED SPECIAL-USE)", where there is one.
bool parse_selection(ImapText& text, ListRequest& request) {
  if (!text.take('(')) return true;
  request.is_extended = true;
  while (!text.take(')')) {
    std::optional<std::string> option = text.atom();
    if (!option) return false;
    if (is_same_name(*option, "SUBSCRIBED"))
      request.wants_subscribed = request.shows_subscribed = true;
    else if (is_same_name(*option, "SPECIAL-USE"))
      request.wants_special = true;
    else if (is_same_name(*option, "RECURSIVEMATCH"))
      request.wants_parents = true;
    else if (!is_same_name(*option, "REMOTE"))  // there are none
      return false;
    text.space();
  }
  return (selects(request) || !request.wants_parents) && text.space();
}

/// A reference, and one pattern or, where that may be, several in parentheses.
bool parse_patterns(ImapText& text, ListRequest& request, bool may_be_several) {
  std::optional<std::string> reference = text.astring();
  if (!reference || !text.space()) return false;
  bool has_several = may_be_several && text.take('(');
  request.is_extended |= has_several;
  do {
    std::optional<std::string> pattern = text.list_mailbox();
    if (!pattern || request.patterns.size() > 100) return false;
    request.asks_for_separator = pattern->empty() && !request.is_extended;
    request.patterns.push_back(failover::with_inbox_in_capitals(*reference + *pattern));
  } while (has_several && text.space());
  return !has_several || text.take(')');
}

/// " RETURN (SUBSCRIBED STATUS (MESSAGES))", where there is one.
bool parse_return(ImapText& text, ListRequest& request) {
  if (!text.space()) return true;
  if (!text.word("RETURN") || !text.space() || !text.take('(')) return false;
  request.is_extended = true;
  while (!text.take(')')) {
    std::optional<std::string> option = text.atom();
    if (!option) return false;
    if (is_same_name(*option, "SUBSCRIBED")) {
      request.shows_subscribed = true;
    } else if (is_same_name(*option, "STATUS")) {
      auto items = text.space() ? parse_status_items(text) : std::nullopt;
      if (!items) return false;
      request.status_items = std::move(*items);
    } else if (!is_same_name(*option, "CHILDREN") && !is_same_name(*option, "SPECIAL-USE")) {  // both are always told
      return false;
    }
    text.space();
  }
  return true;
}

}  // namespace

std::optional<std::vector<std::string>> parse_status_items(ImapText& text) {
  std::vector<std::string> items;
  if (!text.take('(')) return std::nullopt;
  while (!text.take(')')) {
    std::optional<std::string> item = text.atom();
    if (!item) return std::nullopt;
    std::string name = upper_ascii(*item);
    bool is_known = false;
    for (std::string_view known : {"MESSAGES", "RECENT", "UIDNEXT", "UIDVALIDITY", "UNSEEN", "HIGHESTMODSEQ", "SIZE"}) is_known |= name == known;
    if (!is_known) return std::nullopt;
    if (std::find(items.begin(), items.end(), name) == items.end()) items.push_back(std::move(name));
    text.space();
  }
  return items;
}

std::optional<ListRequest> parse_list(ImapText& text) {
  ListRequest request;
  if (!text.space() || !parse_selection(text, request)) return std::nullopt;
  if (!parse_patterns(text, request, true) || !parse_return(text, request) || !text.at_end()) return std::nullopt;
  return request;
}

std::optional<ListRequest> parse_lsub(ImapText& text) {
  ListRequest request;
  request.wants_subscribed = request.wants_parents = true;
  if (!text.space() || !parse_patterns(text, request, false) || !text.at_end()) return std::nullopt;
  request.asks_for_separator = false;
  return request;
}

std::vector<ListedName> chosen_names(const ListRequest& request, const std::vector<ListedName>& all) {
  std::map<std::string, ListedName> names;
  for (const ListedName& one : all) names.emplace(one.name, one);
  std::set<std::string> shown_for_others;
  for (const ListedName& one : all) {
    bool is_selected_below = is_selected(request, one);
    // RFC 5258 3.5: a name is not shown for another below it that is shown itself.
    bool shows_names_above = is_selected_below && request.wants_parents && !fits(request, one.name);
    for (std::size_t slash = one.name.rfind('/'); slash != std::string::npos && slash > 0; slash = one.name.rfind('/', slash - 1)) {
      const std::string name = one.name.substr(0, slash);
      ListedName& above = names.emplace(name, ListedName{name, false}).first->second;
      above.has_children |= one.exists;
      above.has_selected_below |= is_selected_below;
      if (shows_names_above) shown_for_others.insert(name);
    }
  }
  std::vector<ListedName> chosen;
  for (auto& [name, one] : names) {
    bool is_meant = selects(request) ? is_selected(request, one) || shown_for_others.count(name) > 0 : one.exists || one.has_children;
    if (is_meant && fits(request, name)) chosen.push_back(std::move(one));
  }
  std::stable_partition(chosen.begin(), chosen.end(), [](const ListedName& one) { return one.name == failover::inbox; });
  return chosen;
}

std::string listed(const ListRequest& request, const ListedName& name) {
  bool is_only_above = !request.is_extended && request.wants_subscribed && !name.is_subscribed;  // LSUB, RFC 3501 6.3.9
  std::string attributes;
  if (!name.exists || is_only_above) attributes = request.is_extended ? "\\NonExistent " : "\\Noselect ";
  attributes += name.has_children ? "\\HasChildren" : "\\HasNoChildren";
  if (!name.use.empty()) attributes += " " + name.use;
  if (request.shows_subscribed && name.is_subscribed) attributes += " \\Subscribed";
  std::string line = fmt::format("({}) \"/\" {}", attributes, imap_string(encode_mailbox_name(name.name)));
  if (request.is_extended && request.wants_parents && name.has_selected_below)
    line += fmt::format(" (\"CHILDINFO\" (\"{}\"))", request.wants_subscribed ? "SUBSCRIBED" : "SPECIAL-USE");
  return line;
}

}  // namespace holdfast::proxy
