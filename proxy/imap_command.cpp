#include "proxy/imap_command.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <chrono>
#include <limits>

#include "proxy/fold.h"
#include "proxy/late_glib.h"
#include "proxy/mime.h"

namespace holdfast::proxy {
namespace {

constexpr std::size_t most_ranges = 10'000, most_sections = 200;

bool is_atom_char(char c) {
  auto byte = static_cast<unsigned char>(c);
  return byte > 0x20 && byte < 0x7f && std::string_view("(){%*\"\\]").find(c) == std::string_view::npos;
}

bool is_astring_char(char c) { return is_atom_char(c) || c == ']' || static_cast<unsigned char>(c) >= 0x80; }

std::optional<unsigned> month_of(std::string_view name) {
  constexpr std::string_view months = "janfebmaraprmayjunjulaugsepoctnovdec";
  std::size_t at = name.size() == 3 ? months.find(fold_ascii(name)) : std::string_view::npos;
  if (at == std::string_view::npos || at % 3 != 0) return std::nullopt;
  return static_cast<unsigned>(at / 3 + 1);
}

std::optional<std::int64_t> midnight(std::uint64_t day, std::string_view month, std::uint64_t year) {
  std::optional<unsigned> number = month_of(month);
  if (!number || day == 0 || day > 31 || year > 9999) return std::nullopt;
  std::chrono::year_month_day date{std::chrono::year(static_cast<int>(year)), std::chrono::month(*number),
                                   std::chrono::day(static_cast<unsigned>(day))};
  if (!date.ok()) return std::nullopt;
  return std::chrono::sys_days(date).time_since_epoch().count() * 86400LL;
}

}  // namespace

std::optional<LiteralMark> literal_at_end(std::string_view line) {
  if (line.empty() || line.back() != '}') return std::nullopt;
  std::size_t open = line.rfind('{');
  if (open == std::string_view::npos) return std::nullopt;
  std::string_view digits = line.substr(open + 1, line.size() - open - 2);
  LiteralMark mark;
  if (!digits.empty() && digits.back() == '+') {
    mark.waits = false;
    digits.remove_suffix(1);
  }
  auto [end, problem] = std::from_chars(digits.data(), digits.data() + digits.size(), mark.size);
  if (digits.empty() || end != digits.data() + digits.size()) return std::nullopt;
  if (problem == std::errc::result_out_of_range) mark.size = std::numeric_limits<std::uint64_t>::max();
  return mark;
}

bool SequenceSet::contains(std::uint32_t number, std::uint32_t largest) const {
  for (auto [first, last] : ranges) {
    if (first == 0) first = largest;
    if (last == 0) last = largest;
    if (number >= std::min(first, last) && number <= std::max(first, last)) return true;
  }
  return false;
}

bool ImapText::take(char c) {
  if (left_.empty() || left_.front() != c) return false;
  left_.remove_prefix(1);
  return true;
}

bool ImapText::word(std::string_view wanted) {
  if (!is_same_name(left_.substr(0, wanted.size()), wanted)) return false;
  if (left_.size() > wanted.size() && is_atom_char(left_[wanted.size()]) && left_[wanted.size()] != '[') return false;
  left_.remove_prefix(wanted.size());
  return true;
}

std::optional<std::string> ImapText::atom() {
  std::size_t size = 0;
  while (size < left_.size() && is_atom_char(left_[size])) ++size;
  if (size == 0) return std::nullopt;
  std::string taken(left_.substr(0, size));
  left_.remove_prefix(size);
  return taken;
}

std::optional<std::string> ImapText::string() {
  std::string_view saved = left_;
  std::string taken;
  if (take('"')) {
    while (!left_.empty() && left_.front() != '"') {
      if (left_.front() == '\\') {
        left_.remove_prefix(1);
        if (left_.empty() || (left_.front() != '"' && left_.front() != '\\')) break;
      }
      if (left_.front() == '\r' || left_.front() == '\n') break;
      taken += left_.front();
      left_.remove_prefix(1);
    }
    if (take('"')) return taken;
    left_ = saved;
    return std::nullopt;
  }
  std::size_t line_end = left_.find("\r\n");
  if (!is_next('{') || line_end == std::string_view::npos) return std::nullopt;
  std::optional<LiteralMark> mark = literal_at_end(left_.substr(0, line_end));
  if (!mark || left_.size() - line_end - 2 < mark->size) return std::nullopt;
  taken = left_.substr(line_end + 2, mark->size);
  left_.remove_prefix(line_end + 2 + mark->size);
  return taken;
}

std::optional<std::string> ImapText::astring() {
  if (is_next('"') || is_next('{')) return string();
  std::size_t size = 0;
  while (size < left_.size() && is_astring_char(left_[size])) ++size;
  if (size == 0) return std::nullopt;
  std::string taken(left_.substr(0, size));
  left_.remove_prefix(size);
  return taken;
}

std::optional<std::string> ImapText::list_mailbox() {
  if (is_next('"') || is_next('{')) return string();
  std::size_t size = 0;
  while (size < left_.size() && (is_astring_char(left_[size]) || left_[size] == '%' || left_[size] == '*')) ++size;
  if (size == 0) return std::nullopt;
  std::string taken(left_.substr(0, size));
  left_.remove_prefix(size);
  return taken;
}

std::optional<std::uint64_t> ImapText::number() {
  std::uint64_t value = 0;
  auto [end, problem] = std::from_chars(left_.data(), left_.data() + left_.size(), value);
  if (problem != std::errc()) return std::nullopt;
  left_.remove_prefix(static_cast<std::size_t>(end - left_.data()));
  return value;
}

std::optional<SequenceSet> ImapText::sequence_set() {
  std::string_view saved = left_;
  SequenceSet set;
  auto one = [this]() -> std::optional<std::uint32_t> {
    if (take('*')) return 0;
    std::optional<std::uint64_t> value = number();
    if (!value || *value == 0 || *value > 0xffffffffU) return std::nullopt;
    return static_cast<std::uint32_t>(*value);
  };
  do {
    std::optional<std::uint32_t> first = one();
    std::optional<std::uint32_t> last = first;
    if (first && take(':')) last = one();
    if (!first || !last || set.ranges.size() >= most_ranges) {
      left_ = saved;
      return std::nullopt;
    }
    set.ranges.emplace_back(*first, *last);
  } while (take(','));
  return set;
}

std::optional<std::vector<std::string>> ImapText::flags() {
  std::vector<std::string> all;
  bool in_parentheses = take('(');
  while (!at_end() && !is_next(')')) {
    std::string flag;
    if (take('\\')) flag = "\\";
    std::optional<std::string> name = atom();
    if (!name) return std::nullopt;
    all.push_back(flag + *name);
    if (!space()) break;
  }
  if (in_parentheses && !take(')')) return std::nullopt;
  return all;
}

std::optional<std::int64_t> ImapText::date() {
  bool is_quoted = take('"');
  std::optional<std::uint64_t> day = number();
  if (!day || !take('-') || left_.size() < 4) return std::nullopt;
  std::string_view month = left_.substr(0, 3);
  left_.remove_prefix(3);
  if (!take('-')) return std::nullopt;
  std::optional<std::uint64_t> year = number();
  if (!year || (is_quoted && !take('"'))) return std::nullopt;
  return midnight(*day, month, *year);
}

std::optional<std::int64_t> ImapText::date_time() {
  std::optional<std::string> text = string();
  if (!text) return std::nullopt;
  ImapText in(*text);
  in.space();
  std::optional<std::int64_t> day = in.date();
  if (!day || !in.space()) return std::nullopt;
  std::optional<std::uint64_t> hour = in.number();
  if (!hour || *hour > 23 || !in.take(':')) return std::nullopt;
  std::optional<std::uint64_t> minute = in.number();
  if (!minute || *minute > 59 || !in.take(':')) return std::nullopt;
  std::optional<std::uint64_t> second = in.number();
  if (!second || *second > 60 || !in.space()) return std::nullopt;
  bool is_east = in.take('+');
  if (!is_east && !in.take('-')) return std::nullopt;
  std::optional<std::uint64_t> zone = in.number();
  if (!zone || *zone > 1400 || !in.at_end()) return std::nullopt;
  auto offset = static_cast<std::int64_t>(*zone / 100 * 3600 + *zone % 100 * 60);
  return *day + static_cast<std::int64_t>(*hour * 3600 + *minute * 60 + *second) - (is_east ? offset : -offset);
}

// ---- FETCH

namespace {

/// "1.2" of "1.2.HEADER]" and "1.2]". False when it is none; what follows the numbers is still to be read.
bool parse_part_numbers(ImapText& text, BodySection& section) {
  while (std::optional<std::uint64_t> part = text.number()) {
    if (*part == 0 || *part > 100'000 || section.part.size() > 100) return false;
    section.part.push_back(static_cast<std::uint32_t>(*part));
    if (!text.take('.')) return text.is_next(']');
    if (text.is_next(']')) return false;
  }
  return true;
}

/// "(Subject To)"
bool parse_field_names(ImapText& text, BodySection& section) {
  if (!text.space() || !text.take('(')) return false;
  do {
    std::optional<std::string> name = text.astring();
    // It comes back in the answer's label as it is.
    bool is_plain = name && !name->empty() && std::all_of(name->begin(), name->end(), is_atom_char);
    if (!is_plain || section.fields.size() > 1000) return false;
    section.fields.push_back(std::move(*name));
  } while (text.space());
  return text.take(')');
}

/// "HEADER.FIELDS (Subject To)", of a part or of the whole message. Returns its words, or nothing.
std::optional<std::string> parse_part_text(ImapText& text, BodySection& section) {
  struct Known {
    std::string_view name;
    BodySection::What what;
  };
  static constexpr Known known[] = {{"HEADER.FIELDS.NOT", BodySection::What::fields_not},
                                    {"HEADER.FIELDS", BodySection::What::fields},
                                    {"HEADER", BodySection::What::header},
                                    {"TEXT", BodySection::What::text},
                                    {"MIME", BodySection::What::mime}};
  const Known* found = std::find_if(std::begin(known), std::end(known), [&](const Known& one) { return text.word(one.name); });
  if (found == std::end(known)) return std::nullopt;
  section.what = found->what;
  if (section.what == BodySection::What::mime && section.part.empty()) return std::nullopt;
  bool has_names = section.what == BodySection::What::fields || section.what == BodySection::What::fields_not;
  if (!has_names) return std::string(found->name);
  if (!parse_field_names(text, section)) return std::nullopt;
  return fmt::format("{} ({})", found->name, fmt::join(section.fields, " "));
}

/// "<0.1024>", where there is one. False when it is malformed.
bool parse_partial(ImapText& text, BodySection& section) {
  if (!text.take('<')) return true;
  std::optional<std::uint64_t> first = text.number();
  if (!first || !text.take('.')) return false;
  std::optional<std::uint64_t> count = text.number();
  if (!count || *count == 0 || !text.take('>')) return false;
  section.partial = {*first, *count};
  section.label += fmt::format("<{}>", *first);
  return true;
}

std::optional<BodySection> parse_section(ImapText& text, bool is_peek) {
  BodySection section;
  section.is_peek = is_peek;
  if (!parse_part_numbers(text, section)) return std::nullopt;
  std::string inside = fmt::format("{}", fmt::join(section.part, "."));
  if (!text.is_next(']')) {
    std::optional<std::string> words = parse_part_text(text, section);
    if (!words) return std::nullopt;
    inside += (inside.empty() ? "" : ".") + *words;
  }
  if (!text.take(']')) return std::nullopt;
  section.label = "BODY[" + inside + "]";
  if (!parse_partial(text, section)) return std::nullopt;
  return section;
}

bool parse_fetch_item(ImapText& text, FetchItems& items) {
  auto section = [&](std::string_view name, BodySection::What what, bool is_peek) {
    BodySection one;
    one.what = what;
    one.is_peek = is_peek;
    one.label = name;
    items.sections.push_back(std::move(one));
    return true;
  };
  if (text.word("FLAGS")) return items.flags = true;
  if (text.word("UID")) return items.uid = true;
  if (text.word("INTERNALDATE")) return items.date = true;
  if (text.word("RFC822.SIZE")) return items.size = true;
  if (text.word("ENVELOPE")) return items.envelope = true;
  if (text.word("BODYSTRUCTURE")) return items.body_structure = true;
  if (text.word("MODSEQ")) return items.modseq = true;
  if (text.word("RFC822.HEADER")) return section("RFC822.HEADER", BodySection::What::header, true);
  if (text.word("RFC822.TEXT")) return section("RFC822.TEXT", BodySection::What::text, false);
  if (text.word("RFC822")) return section("RFC822", BodySection::What::all, false);
  bool is_peek = text.word("BODY.PEEK");
  if (!is_peek && !text.word("BODY")) return false;
  if (!text.take('[')) return is_peek ? false : (items.body = true);
  std::optional<BodySection> one = parse_section(text, is_peek);
  if (!one || items.sections.size() >= most_sections) return false;
  items.sections.push_back(std::move(*one));
  return true;
}

}  // namespace

std::optional<FetchItems> parse_fetch(ImapText& text) {
  FetchItems items;
  auto macro = [&](std::string_view name, bool envelope, bool body) {
    if (!text.word(name)) return false;
    items.flags = items.date = items.size = true;
    items.envelope = envelope;
    items.body = body;
    return true;
  };
  bool is_macro = macro("ALL", true, false) || macro("FAST", false, false) || macro("FULL", true, true);
  if (!is_macro) {
    if (text.take('(')) {
      do {
        if (!parse_fetch_item(text, items)) return std::nullopt;
      } while (text.space());
      if (!text.take(')')) return std::nullopt;
    } else if (!parse_fetch_item(text, items)) {
      return std::nullopt;
    }
  }
  if (text.space()) {
    if (!text.take('(') || !text.word("CHANGEDSINCE") || !text.space()) return std::nullopt;
    std::optional<std::uint64_t> modseq = text.number();
    if (!modseq || !text.take(')')) return std::nullopt;
    items.changed_since = *modseq;
    items.modseq = true;
  }
  if (!text.at_end()) return std::nullopt;
  return items;
}

// ---- Mailbox names: UTF-7 with '&' for '+' and ',' for '/' (RFC 3501 5.1.3)

std::optional<std::string> decode_mailbox_name(std::string_view name) {
  std::string utf8;
  while (!name.empty()) {
    char c = name.front();
    if (c != '&') {
      utf8 += c;
      name.remove_prefix(1);
      continue;
    }
    std::size_t end = name.find('-');
    if (end == std::string_view::npos) return std::nullopt;
    std::string base64(name.substr(1, end - 1));
    name.remove_prefix(end + 1);
    if (base64.empty()) {
      utf8 += '&';
      continue;
    }
    std::replace(base64.begin(), base64.end(), ',', '/');
    while (base64.size() % 4 != 0) base64 += '=';
    gsize size = 0;
    guchar* bytes = g_base64_decode(base64.c_str(), &size);
    gsize converted_size = 0;
    char* converted =
        g_convert(reinterpret_cast<char*>(bytes), static_cast<gssize>(size & ~gsize{1}), "UTF-8", "UTF-16BE", nullptr, &converted_size, nullptr);
    g_free(bytes);
    if (!converted) return std::nullopt;
    utf8.append(converted, converted_size);
    g_free(converted);
  }
  if (!g_utf8_validate(utf8.data(), static_cast<gssize>(utf8.size()), nullptr)) return std::nullopt;
  return utf8;
}

std::string encode_mailbox_name(std::string_view utf8) {
  std::string name;
  while (!utf8.empty()) {
    std::size_t plain = 0;
    while (plain < utf8.size() && static_cast<unsigned char>(utf8[plain]) >= 0x20 && static_cast<unsigned char>(utf8[plain]) < 0x7f) {
      name += utf8[plain];
      if (utf8[plain] == '&') name += '-';
      ++plain;
    }
    utf8.remove_prefix(plain);
    std::size_t other = 0;
    while (other < utf8.size() && (static_cast<unsigned char>(utf8[other]) < 0x20 || static_cast<unsigned char>(utf8[other]) >= 0x7f)) ++other;
    if (other == 0) continue;
    gsize size = 0;
    char* utf16 = g_convert(utf8.data(), static_cast<gssize>(other), "UTF-16BE", "UTF-8", nullptr, &size, nullptr);
    if (utf16) {
      char* base64 = g_base64_encode(reinterpret_cast<guchar*>(utf16), size);
      std::string text(base64);
      text.erase(text.find_last_not_of('=') + 1);
      std::replace(text.begin(), text.end(), '/', ',');
      name += "&" + text + "-";
      g_free(base64);
      g_free(utf16);
    }
    utf8.remove_prefix(other);
  }
  return name;
}

}  // namespace holdfast::proxy
