#include "proxy/imap_search.h"

#include <gmime/gmime.h>

#include <algorithm>
#include <map>
#include <set>

namespace holdfast::proxy {
namespace {

using Kind = SearchKey::Kind;

bool is_ascii(std::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) { return static_cast<unsigned char>(c) < 0x80; });
}

std::string fold_ascii(std::string_view text) {
  std::string out(text);
  for (char& c : out) c = static_cast<char>(c >= 'A' && c <= 'Z' ? c + 32 : c);
  return out;
}

/// Where to cut text that is longer than that: before an ASCII character, with which no accent or letter before it combines; where
/// there is none, before any character.
std::size_t cut_of(std::string_view text, std::size_t longest) {
  if (text.size() <= longest) return text.size();
  auto cut_before = [&](auto is_possible) {
    std::size_t at = longest;
    while (at > 0 && !is_possible(static_cast<unsigned char>(text[at]))) --at;
    return at;
  };
  std::size_t before_ascii = cut_before([](unsigned char c) { return c < 0x80; });
  std::size_t before_any = cut_before([](unsigned char c) { return (c & 0xc0) != 0x80; });
  return before_ascii > 0 ? before_ascii : before_any > 0 ? before_any : longest;
}

/// Piece by piece, since GLib's normalising takes time by the square of the length.
std::string fold(std::string_view text) {
  if (is_ascii(text)) return fold_ascii(text);
  constexpr std::size_t longest_piece = 256;
  std::string out;
  for (std::size_t size; !text.empty(); text.remove_prefix(size)) {
    size = cut_of(text, longest_piece);
    char* valid = g_utf8_make_valid(text.data(), static_cast<gssize>(size));
    char* normal = g_utf8_normalize(valid, -1, G_NORMALIZE_ALL_COMPOSE);
    char* folded = g_utf8_casefold(normal, -1);
    out += folded;
    for (char* one : {valid, normal, folded}) g_free(one);
  }
  return out;
}

/// needle is folded. ASCII needs no more than ASCII's folding, which is much faster.
bool contains(std::string_view text, const std::string& needle) {
  if (needle.empty()) return true;
  return (is_ascii(needle) ? fold_ascii(text) : fold(text)).find(needle) != std::string::npos;
}

std::string decoded_value(std::string_view field) {
  std::string value;
  for (char c : field.substr(field.find(':') + 1))
    if (c != '\r' && c != '\n' && c != '\0') value += c;
  return decode_header_text(value);
}

bool has_in_fields(std::string_view header, std::string_view name, const std::string& needle) {
  bool is_found = false;
  each_field(header.substr(0, longest_header_read), [&](std::string_view field_name, std::string_view field) {
    if (is_found || (!name.empty() && !is_same_name(field_name, name))) return;
    is_found = contains(decoded_value(field.substr(0, longest_field_value)), needle);
  });
  return is_found || (name.empty() && contains(header, needle));
}

bool has_in_body(std::string_view message, const MimePart& part, const std::string& needle) {
  if (part.is_multipart() || part.is_message())
    return std::any_of(part.children.begin(), part.children.end(), [&](const MimePart& child) {
      return has_in_body(message, child, needle) ||
             (part.is_message() && has_in_fields(child.header.of(message), "", needle));
    });
  bool is_readable = part.type == "text" || part.type == "message";  // message/delivery-status and the like
  return is_readable && contains(decode_body(message, part), needle);
}

/// In what describes a message's parts: the names of attachments above all, encoded or not.
bool has_in_part_headers(std::string_view message, const MimePart& part, const std::string& needle) {
  auto has = [&](const auto& parameters) {
    return std::any_of(parameters.begin(), parameters.end(), [&](const auto& one) { return contains(one.second, needle); });
  };
  return has(part.parameters) || has(part.disposition_parameters) ||
         std::any_of(part.children.begin(), part.children.end(), [&](const MimePart& child) {
           return has_in_fields(child.header.of(message), "", needle) || has_in_part_headers(message, child, needle);
         });
}

constexpr std::int64_t day_s = 86400;

/// The day that the Date field names, in its own time zone; the day of arrival where there is none.
std::int64_t sent_day(ReadMessage& message) {
  std::int64_t arrival = message.stored().date_us / 1000000;
  GDateTime* date = g_mime_utils_header_decode_date(field_of(message.header(), "Date").c_str());
  std::int64_t seconds = arrival;
  if (date) {
    seconds = g_date_time_to_unix(date) + g_date_time_get_utc_offset(date) / G_USEC_PER_SEC;
    g_date_time_unref(date);
  }
  return seconds / day_s * day_s;
}

}  // namespace

std::string_view ReadMessage::header() {
  if (!is_read_) text_ = load_(false);
  is_read_ = true;
  return header_of(text_).of(text_);
}

const std::string& ReadMessage::content() {
  if (!is_whole_) text_ = load_(true);
  is_read_ = is_whole_ = true;
  return text_;
}

const MimePart& ReadMessage::structure() {
  if (!structure_) structure_ = parse_mime(content());
  return *structure_;
}

SearchKey folded(SearchKey key) {
  key.text = fold(key.text);
  for (SearchKey& child : key.children) child = folded(std::move(child));
  return key;
}

bool matches(const SearchKey& key, ReadMessage& message, std::uint32_t number, const SearchScope& scope) {
  const failover::StoredMessage& stored = message.stored();
  std::int64_t arrival = stored.date_us / 1000000, arrival_day = arrival / day_s * day_s;
  auto now_minus = [&](std::uint64_t seconds) {
    return scope.now_s - static_cast<std::int64_t>(std::min<std::uint64_t>(seconds, 1ULL << 40));
  };
  switch (key.kind) {
    case Kind::all:
      return true;
    case Kind::nothing:
      return false;
    case Kind::sequence:
      return key.set.contains(number, scope.largest_number);
    case Kind::uid:
      return key.set.contains(stored.uid, scope.largest_uid);
    case Kind::flag:
      return (stored.flags & key.flag) != 0;
    case Kind::no_flag:
      return (stored.flags & key.flag) == 0;
    case Kind::keyword:
    case Kind::no_keyword: {
      bool has = std::any_of(stored.keywords.begin(), stored.keywords.end(),
                             [&](const std::string& one) { return is_same_name(one, key.text); });
      return has == (key.kind == Kind::keyword);
    }
    case Kind::before:
      return arrival_day < key.date;
    case Kind::on:
      return arrival_day == key.date;
    case Kind::since:
      return arrival_day >= key.date;
    case Kind::sent_before:
      return sent_day(message) < key.date;
    case Kind::sent_on:
      return sent_day(message) == key.date;
    case Kind::sent_since:
      return sent_day(message) >= key.date;
    case Kind::younger:
      return arrival >= now_minus(key.number);
    case Kind::older:
      return arrival <= now_minus(key.number);
    case Kind::larger:
      return stored.size > key.number;
    case Kind::smaller:
      return stored.size < key.number;
    case Kind::modseq:
      return stored.modseq >= key.number;
    case Kind::header:
      return has_in_fields(message.header(), key.field, key.text);
    case Kind::body:
      return has_in_body(message.content(), message.structure(), key.text);
    case Kind::text:
      return has_in_fields(message.header(), "", key.text) ||
             has_in_body(message.content(), message.structure(), key.text) ||
             has_in_part_headers(message.content(), message.structure(), key.text);
    case Kind::negation:
      return !matches(key.children.front(), message, number, scope);
    case Kind::either:
      return matches(key.children[0], message, number, scope) ||
             matches(key.children[1], message, number, scope);
    case Kind::both:
      return std::all_of(key.children.begin(), key.children.end(),
                         [&](const SearchKey& child) { return matches(child, message, number, scope); });
  }
  return false;
}

// ---- SORT and THREAD

namespace {

void strip_blanks(std::string_view& left) { left.remove_prefix(std::min(left.find_first_not_of(' '), left.size())); }

/// "[list] "
bool strip_blob(std::string_view& left) {
  if (!left.starts_with('[')) return false;
  std::size_t end = left.find_first_of("[]", 1);
  if (end == std::string_view::npos || left[end] != ']') return false;
  left.remove_prefix(end + 1);
  strip_blanks(left);
  return true;
}

/// "re: ", "fwd [list]: "; and "aw: " and "wg: ", as they are called in German.
bool strip_reply(std::string_view& left) {
  std::string_view rest = left;
  for (std::string_view word : {"re", "fwd", "fw", "aw", "wg"}) {
    if (!rest.starts_with(word)) continue;
    rest.remove_prefix(word.size());
    strip_blanks(rest);
    strip_blob(rest);
    if (!rest.starts_with(':')) return false;
    rest.remove_prefix(1);
    strip_blanks(rest);
    left = rest;
    return true;
  }
  return false;
}

/// "(fwd)"
bool strip_trailer(std::string_view& left) {
  while (left.ends_with(' ')) left.remove_suffix(1);
  if (!left.ends_with("(fwd)")) return false;
  left.remove_suffix(5);
  return true;
}

/// The subject without what replying, forwarding and lists put around it (RFC 5256 2.1).
std::string base_subject(const std::string& subject, bool& is_reply) {
  std::string text;
  for (char c : subject)
    if (!(c == ' ' || c == '\t') || (!text.empty() && text.back() != ' ')) text += c == '\t' ? ' ' : c;
  std::string_view left = text;
  for (;;) {
    while (strip_trailer(left)) is_reply = true;
    strip_blanks(left);
    std::string_view last_blob, behind = left;
    for (bool is_leader = true; is_leader;) {
      std::string_view before = behind;
      is_leader = strip_blob(behind);
      if (is_leader) {
        last_blob = before;
      } else if (strip_reply(behind)) {
        is_leader = is_reply = true;
        last_blob = {};
      }
    }
    left = behind.empty() ? last_blob : behind;
    if (!left.starts_with("[fwd:") || !left.ends_with(']')) return std::string(left);
    left = left.substr(5, left.size() - 6);
    is_reply = true;
  }
}

/// Of one message: a thousand messages from somebody hostile must not be a million references.
constexpr std::size_t most_references = 100;

/// RFC 5256 counts valid ones only: those with an @ (RFC 5322 3.6.4).
std::vector<std::string> message_ids(std::string_view text) {
  std::vector<std::string> ids;
  for (std::size_t at = 0; (at = text.find('<', at)) != std::string_view::npos;) {
    std::size_t end = text.find('>', at);
    if (end == std::string_view::npos || ids.size() >= most_references) break;
    std::string_view id = text.substr(at, end - at + 1);
    if (id.find('@') != std::string_view::npos) ids.emplace_back(id);
    at = end;
  }
  return ids;
}

struct Thread {
  const SortFacts* message = nullptr;  ///< null: known from references only
  Thread* parent = nullptr;
  std::vector<Thread*> children;
  std::int64_t date() const {
    if (message) return message->sent_s;
    return children.empty() ? 0 : children.front()->date();
  }
  std::uint32_t number() const {
    return message ? message->number : children.empty() ? 0 : children.front()->number();
  }
};

/// True also for what is too deep to be looked through: it is not linked any deeper.
bool is_ancestor(const Thread* maybe, const Thread* of) {
  constexpr int deepest = 1000;
  for (int depth = 0; of && depth < deepest; of = of->parent, ++depth)
    if (of == maybe) return true;
  return of != nullptr;
}

void link(Thread* parent, Thread* child) {
  if (child->parent || is_ancestor(child, parent)) return;
  child->parent = parent;
  parent->children.push_back(child);
}

/// Deep threads are flattened: each level costs the client two parentheses and us a call.
constexpr int deepest_thread = 200;

void flatten(Thread* thread, std::vector<Thread*>& kept) {
  for (std::vector<Thread*> left{thread}; !left.empty();) {
    Thread* one = left.back();
    left.pop_back();
    left.insert(left.end(), one->children.begin(), one->children.end());
    one->children.clear();
    if (one->message) kept.push_back(one);
  }
}

void collect(Thread* thread, std::vector<Thread*>& kept, int depth) {
  if (depth >= deepest_thread) return flatten(thread, kept);
  std::vector<Thread*> below;
  for (Thread* child : thread->children) collect(child, below, depth + 1);
  thread->children = std::move(below);
  auto by_date = [](const Thread* a, const Thread* b) {
    return std::pair(a->date(), a->number()) < std::pair(b->date(), b->number());
  };
  std::sort(thread->children.begin(), thread->children.end(), by_date);
  if (thread->message) return kept.push_back(thread);
  bool is_needed = depth == 0 && thread->children.size() > 1;
  if (is_needed) return kept.push_back(thread);
  kept.insert(kept.end(), thread->children.begin(), thread->children.end());
}

void print(const Thread* thread, std::string& out) {
  if (thread->message) out += std::to_string(thread->message->number);
  if (thread->children.size() == 1) {
    if (thread->message) out += ' ';
    return print(thread->children.front(), out);
  }
  if (!thread->children.empty() && thread->message) out += ' ';
  for (const Thread* child : thread->children) {
    out += '(';
    print(child, out);
    out += ')';
  }
}

std::string print_all(const std::vector<Thread*>& roots) {
  std::string out;
  for (const Thread* root : roots) {
    out += '(';
    print(root, out);
    out += ')';
  }
  return out;
}

}  // namespace

SortFacts sort_facts(ReadMessage& message, std::uint32_t number) {
  SortFacts facts;
  facts.number = number;
  facts.arrival_us = message.stored().date_us;
  facts.size = message.stored().size;
  std::string_view header = message.header();
  facts.sent_s = facts.arrival_us / 1000000;
  if (GDateTime* date = g_mime_utils_header_decode_date(field_of(header, "Date").c_str())) {
    facts.sent_s = g_date_time_to_unix(date);
    g_date_time_unref(date);
  }
  facts.subject = base_subject(fold(decode_header_text(field_of(header, "Subject"))), facts.is_reply);
  auto first_mailbox = [&](std::string_view field) {
    for (const MailAddress& one : parse_addresses(field_of(header, field)))
      if (!one.mailbox.empty()) return fold(one.mailbox);
    return std::string();
  };
  facts.from = first_mailbox("From");
  facts.to = first_mailbox("To");
  facts.cc = first_mailbox("Cc");
  std::vector<std::string> own = message_ids(field_of(header, "Message-ID"));
  if (!own.empty()) facts.message_id = own.front();
  facts.references = message_ids(field_of(header, "References"));
  if (facts.references.empty()) {
    facts.references = message_ids(field_of(header, "In-Reply-To"));
    if (facts.references.size() > 1) facts.references.resize(1);
  }
  return facts;
}

void sort_messages(std::vector<SortFacts>& all,
                   const std::vector<std::pair<SortCommand::By, bool>>& criteria) {
  using By = SortCommand::By;
  auto compare = [](By by, const SortFacts& a, const SortFacts& b) {
    auto order = [](const auto& x, const auto& y) { return x < y ? -1 : y < x ? 1 : 0; };
    switch (by) {
      case By::arrival:
        return order(a.arrival_us, b.arrival_us);
      case By::cc:
        return order(a.cc, b.cc);
      case By::date:
        return order(a.sent_s, b.sent_s);
      case By::from:
        return order(a.from, b.from);
      case By::size:
        return order(a.size, b.size);
      case By::subject:
        return order(a.subject, b.subject);
      case By::to:
        return order(a.to, b.to);
    }
    return 0;
  };
  std::sort(all.begin(), all.end(), [&](const SortFacts& a, const SortFacts& b) {
    for (auto [by, is_reverse] : criteria)
      if (int order = compare(by, a, b)) return is_reverse ? order > 0 : order < 0;
    return a.number < b.number;
  });
}

std::string thread_by_references(std::vector<SortFacts> all) {
  std::vector<std::unique_ptr<Thread>> nodes;
  std::map<std::string, Thread*> by_id;
  auto node = [&] {
    nodes.push_back(std::make_unique<Thread>());
    return nodes.back().get();
  };
  auto known = [&](const std::string& id) {
    Thread*& slot = by_id[id];
    if (!slot) slot = node();
    return slot;
  };
  for (const SortFacts& facts : all) {
    Thread* own = facts.message_id.empty() ? node() : known(facts.message_id);
    if (own->message) own = node();  // the same Message-ID again
    own->message = &facts;
    Thread* parent = nullptr;
    for (const std::string& id : facts.references) {
      Thread* reference = known(id);
      if (parent) link(parent, reference);
      parent = reference;
    }
    if (parent && parent != own) {
      if (own->parent) std::erase(own->parent->children, own);
      own->parent = nullptr;
      link(parent, own);
    }
  }
  std::vector<Thread*> roots;
  for (const auto& one : nodes)
    if (!one->parent) collect(one.get(), roots, 0);
  auto by_date = [](const Thread* a, const Thread* b) {
    return std::pair(a->date(), a->number()) < std::pair(b->date(), b->number());
  };
  std::sort(roots.begin(), roots.end(), by_date);
  // RFC 5256 REFERENCES, step 5: replies whose references are lost find their thread by the subject.
  std::map<std::string, Thread*> by_subject;
  auto first_of = [](const Thread* root) {
    return root->message ? root->message : root->children.front()->message;
  };
  for (Thread* root : roots) {
    const SortFacts* facts = first_of(root);
    if (!facts || facts->subject.empty()) continue;
    Thread*& slot = by_subject[facts->subject];
    bool is_better = !slot || (slot->message && !root->message) ||
                     (slot->message && first_of(slot)->is_reply && !facts->is_reply);
    if (is_better) slot = root;
  }
  std::vector<Thread*> merged;
  for (Thread* root : roots) {
    const SortFacts* facts = first_of(root);
    auto found = facts && !facts->subject.empty() ? by_subject.find(facts->subject) : by_subject.end();
    Thread* other = found == by_subject.end() ? nullptr : found->second;
    if (!other || other == root) {
      merged.push_back(root);
    } else if (!other->message) {
      if (root->message)
        other->children.push_back(root);
      else
        other->children.insert(other->children.end(), root->children.begin(), root->children.end());
    } else if (facts->is_reply && !first_of(other)->is_reply) {
      other->children.push_back(root);
    } else {
      Thread* both = node();
      // The other one keeps its place in the list, as the dummy that holds both.
      *both = *other;
      other->message = nullptr;
      other->children = {both, root};
    }
  }
  return print_all(merged);
}

std::string thread_by_subject(std::vector<SortFacts> all) {
  std::map<std::string, std::vector<const SortFacts*>> groups;
  auto by_date = [](const SortFacts* a, const SortFacts* b) {
    return std::pair(a->sent_s, a->number) < std::pair(b->sent_s, b->number);
  };
  for (const SortFacts& facts : all) groups[facts.subject].push_back(&facts);
  std::vector<std::vector<const SortFacts*>> threads;
  for (auto& [subject, messages] : groups) {
    std::sort(messages.begin(), messages.end(), by_date);
    threads.push_back(std::move(messages));
  }
  std::sort(threads.begin(), threads.end(),
            [&](const auto& a, const auto& b) { return by_date(a.front(), b.front()); });
  std::string out;
  for (const auto& messages : threads) {
    out += '(' + std::to_string(messages.front()->number);
    if (messages.size() == 2) out += ' ' + std::to_string(messages[1]->number);
    if (messages.size() > 2) {
      out += ' ';
      for (std::size_t i = 1; i < messages.size(); ++i)
        out += '(' + std::to_string(messages[i]->number) + ')';
    }
    out += ')';
  }
  return out;
}

}  // namespace holdfast::proxy
