// The grammar of IMAP commands (RFC 3501 section 9, and those of the extensions), as values. Sans I/O;
// fuzzed.
//
// A command comes as one text with its literals in place, each after its {size} line.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace holdfast::proxy {

/// What a line says about a literal that follows it.
struct LiteralMark {
  std::uint64_t size = 0;
  bool waits = true;  ///< for the server's continuation; false for {size+} (RFC 7888)
};
/// Of a line without its line end; nothing when it announces none.
std::optional<LiteralMark> literal_at_end(std::string_view line);

/// Numbers and ranges; 0 stands for "*".
struct SequenceSet {
  std::vector<std::pair<std::uint32_t, std::uint32_t>> ranges;
  bool contains(std::uint32_t number, std::uint32_t largest) const;
};

/// Reads a command's text from left to right. Each function returns nothing, or false, when something else
/// stands there, and does not move then.
class ImapText {
 public:
  explicit ImapText(std::string_view text) : left_(text) {}

  bool at_end() const { return left_.empty(); }
  bool take(char c);
  bool space() { return take(' '); }
  /// Takes the word when it stands there, ignoring case, and no atom character follows.
  bool word(std::string_view wanted);
  bool is_next(char c) const { return !left_.empty() && left_.front() == c; }

  std::optional<std::string> atom();
  std::optional<std::string> string();  ///< quoted or literal
  std::optional<std::string> astring();
  std::optional<std::string> list_mailbox();  ///< an astring that may have wildcards
  std::optional<std::uint64_t> number();
  std::optional<SequenceSet> sequence_set();
  /// "(\Seen keyword)", or the same without parentheses up to the end.
  std::optional<std::vector<std::string>> flags();
  std::optional<std::int64_t> date();       ///< "1-Feb-2026", as seconds since 1970 of its midnight, UTC
  std::optional<std::int64_t> date_time();  ///< "\" 1-Feb-2026 10:00:00 +0100\"", as seconds since 1970

  std::string_view left() const { return left_; }

 private:
  std::string_view left_;
};

/// BODY[...] of FETCH.
struct BodySection {
  enum class What { all, header, fields, fields_not, text, mime };
  std::vector<std::uint32_t> part;
  What what = What::all;
  std::vector<std::string> fields;
  bool is_peek = false;
  std::optional<std::pair<std::uint64_t, std::uint64_t>> partial;  ///< first octet, how many
  std::string label;                                               ///< how the answer names it
};

struct FetchItems {
  bool flags = false, uid = false, date = false, size = false, envelope = false, body = false, body_structure = false, modseq = false;
  std::vector<BodySection> sections;
  std::uint64_t changed_since = 0;  ///< CONDSTORE; 0: not asked for
};
/// Items, and modifiers such as (CHANGEDSINCE 5), to the end.
std::optional<FetchItems> parse_fetch(ImapText& text);

struct SearchKey {
  enum class Kind {
    all,
    sequence,
    uid,
    flag,
    no_flag,
    keyword,
    no_keyword,
    before,
    on,
    since,
    sent_before,
    sent_on,
    sent_since,
    larger,
    smaller,
    header,
    body,
    text,
    modseq,
    negation,
    either,
    both,
    nothing,
    younger,
    older
  };
  Kind kind = Kind::all;
  SequenceSet set;
  std::uint8_t flag = 0;
  std::uint64_t number = 0;
  std::int64_t date = 0;
  std::string field, text;
  std::vector<SearchKey> children;
};

struct SearchCommand {
  bool is_extended = false;  ///< RETURN (...) was given (RFC 4731)
  bool min = false, max = false, count = false, all = false;
  std::string charset = "US-ASCII";
  SearchKey key;
  bool has_modseq = false;
};
/// RETURN, CHARSET and the keys, to the end. Nested and long beyond reason is refused.
std::optional<SearchCommand> parse_search(ImapText& text);

struct SortCommand {
  enum class By { arrival, cc, date, from, size, subject, to };
  std::vector<std::pair<By, bool>> criteria;  ///< and whether in reverse
  SearchCommand search;
};
std::optional<SortCommand> parse_sort(ImapText& text);

/// Modified UTF-7 (RFC 3501 5.1.3), and back. Nothing when it is malformed.
std::optional<std::string> decode_mailbox_name(std::string_view name);
std::string encode_mailbox_name(std::string_view utf8);

}  // namespace holdfast::proxy
