// The grammar of SEARCH and SORT (RFC 3501 6.4.4, RFC 4731, RFC 5256).
#include "failover/mailbox_store.h"
#include "proxy/imap_command.h"

namespace holdfast::proxy {

namespace {

constexpr std::size_t most_keys = 200;
constexpr int deepest_search = 20;

using Kind = SearchKey::Kind;

class SearchParser {
 public:
  SearchParser(ImapText& text, SearchCommand& command) : text_(text), command_(command) {}

  /// One key or, in parentheses or at the top, several that must all hold.
  std::optional<SearchKey> all_of(int depth, bool in_parentheses) {
    SearchKey both;
    both.kind = Kind::both;
    do {
      std::optional<SearchKey> key = one(depth);
      if (!key) return std::nullopt;
      both.children.push_back(std::move(*key));
    } while (text_.space());
    if (in_parentheses ? !text_.take(')') : !text_.at_end()) return std::nullopt;
    return both;
  }

 private:
  std::optional<SearchKey> one(int depth) {
    if (depth > deepest_search || ++count_ > most_keys) return std::nullopt;
    if (text_.take('(')) return all_of(depth + 1, true);
    SearchKey key;
    if (text_.word("NOT")) {
      if (!text_.space()) return std::nullopt;
      std::optional<SearchKey> negated = one(depth + 1);
      if (!negated) return std::nullopt;
      key.kind = Kind::negation;
      key.children.push_back(std::move(*negated));
      return key;
    }
    if (text_.word("OR")) {
      key.kind = Kind::either;
      for (int i = 0; i < 2; ++i) {
        if (!text_.space()) return std::nullopt;
        std::optional<SearchKey> choice = one(depth + 1);
        if (!choice) return std::nullopt;
        key.children.push_back(std::move(*choice));
      }
      return key;
    }
    if (word_of_flag(key) || word_of_text(key)) return is_bad_ ? std::nullopt : std::optional(key);
    if (text_.word("UID")) {
      std::optional<SequenceSet> set = text_.space() ? text_.sequence_set() : std::nullopt;
      if (!set) return std::nullopt;
      key.kind = Kind::uid;
      key.set = std::move(*set);
      return key;
    }
    std::optional<SequenceSet> set = text_.sequence_set();
    if (!set) return std::nullopt;
    key.kind = Kind::sequence;
    key.set = std::move(*set);
    return key;
  }

  bool word_of_flag(SearchKey& key) {
    using namespace failover;
    if (text_.word("ALL")) return key.kind = Kind::all, true;
    struct Name {
      std::string_view word;
      Kind kind;
      std::uint8_t flag;
    };
    for (auto [word, kind, flag] : {Name{"ANSWERED", Kind::flag, answered},
                                    {"DELETED", Kind::flag, deleted},
                                    {"DRAFT", Kind::flag, draft},
                                    {"FLAGGED", Kind::flag, flagged},
                                    {"SEEN", Kind::flag, seen},
                                    {"UNANSWERED", Kind::no_flag, answered},
                                    {"UNDELETED", Kind::no_flag, deleted},
                                    {"UNDRAFT", Kind::no_flag, draft},
                                    {"UNFLAGGED", Kind::no_flag, flagged},
                                    {"UNSEEN", Kind::no_flag, seen}}) {
      if (!text_.word(word)) continue;
      key.kind = kind;
      key.flag = flag;
      return true;
    }
    // There is no \Recent here: what one session has seen would be hidden from the next. New is what was not read.
    if (text_.word("NEW")) return key.kind = Kind::no_flag, key.flag = seen, true;
    if (text_.word("RECENT")) return key.kind = Kind::nothing, true;
    if (text_.word("OLD")) return key.kind = Kind::all, true;
    return false;
  }

  bool word_of_text(SearchKey& key) {
    auto string = [&](std::string& out) {
      std::optional<std::string> value = text_.space() ? text_.astring() : std::nullopt;
      if (value)
        out = std::move(*value);
      else
        is_bad_ = true;
    };
    for (std::string_view field : {"BCC", "CC", "FROM", "SUBJECT", "TO"})
      if (text_.word(field)) {
        key.kind = Kind::header;
        key.field = field;
        return string(key.text), true;
      }
    if (text_.word("HEADER")) {
      key.kind = Kind::header;
      string(key.field);
      if (!is_bad_) string(key.text);
      return true;
    }
    for (auto [word, kind] : {std::pair("BODY", Kind::body), {"TEXT", Kind::text}, {"KEYWORD", Kind::keyword}, {"UNKEYWORD", Kind::no_keyword}})
      if (text_.word(word)) return key.kind = kind, string(key.text), true;
    for (auto [word, kind] : {std::pair("BEFORE", Kind::before),
                              {"ON", Kind::on},
                              {"SINCE", Kind::since},
                              {"SENTBEFORE", Kind::sent_before},
                              {"SENTON", Kind::sent_on},
                              {"SENTSINCE", Kind::sent_since}})
      if (text_.word(word)) {
        std::optional<std::int64_t> date = text_.space() ? text_.date() : std::nullopt;
        is_bad_ |= !date;
        key.kind = kind;
        key.date = date.value_or(0);
        return true;
      }
    for (auto [word, kind] : {std::pair("LARGER", Kind::larger),
                              {"SMALLER", Kind::smaller},
                              {"MODSEQ", Kind::modseq},
                              {"YOUNGER", Kind::younger},
                              {"OLDER", Kind::older}})
      if (text_.word(word)) {
        bool has_space = text_.space();
        if (kind == Kind::modseq) {
          command_.has_modseq = true;
          is_bad_ |= has_space && text_.is_next('"') && !skip_metadata_name();
        }
        std::optional<std::uint64_t> number = has_space ? text_.number() : std::nullopt;
        is_bad_ |= !number;
        key.kind = kind;
        key.number = number.value_or(0);
        return true;
      }
    return false;
  }

  /// "/flags/\\Seen" all: a message has one mod-sequence for all of them, so that it does not matter (RFC 7162 3.1.5).
  bool skip_metadata_name() {
    bool has_name = text_.string().has_value() && text_.space();
    return has_name && (text_.word("ALL") || text_.word("PRIV") || text_.word("SHARED")) && text_.space();
  }

  ImapText& text_;
  SearchCommand& command_;
  std::size_t count_ = 0;
  bool is_bad_ = false;
};

}  // namespace

std::optional<SearchCommand> parse_search(ImapText& text) {
  SearchCommand command;
  if (text.word("RETURN")) {
    command.is_extended = true;
    if (!text.space() || !text.take('(')) return std::nullopt;
    while (!text.take(')')) {
      if (text.word("MIN"))
        command.min = true;
      else if (text.word("MAX"))
        command.max = true;
      else if (text.word("COUNT"))
        command.count = true;
      else if (text.word("ALL"))
        command.all = true;
      else
        return std::nullopt;
      text.space();
    }
    if (!text.space()) return std::nullopt;
    if (!command.min && !command.max && !command.count) command.all = true;
  }
  if (text.word("CHARSET")) {
    std::optional<std::string> charset = text.space() ? text.astring() : std::nullopt;
    if (!charset || !text.space()) return std::nullopt;
    command.charset = std::move(*charset);
  }
  std::optional<SearchKey> key = SearchParser(text, command).all_of(0, false);
  if (!key) return std::nullopt;
  command.key = std::move(*key);
  return command;
}

std::optional<SortCommand> parse_sort(ImapText& text) {
  SortCommand command;
  if (!text.take('(')) return std::nullopt;
  do {
    bool is_reverse = text.word("REVERSE");
    if (is_reverse && !text.space()) return std::nullopt;
    bool is_known = false;
    for (auto [word, by] : {std::pair("ARRIVAL", SortCommand::By::arrival),
                            {"CC", SortCommand::By::cc},
                            {"DATE", SortCommand::By::date},
                            {"FROM", SortCommand::By::from},
                            {"SIZE", SortCommand::By::size},
                            {"SUBJECT", SortCommand::By::subject},
                            {"TO", SortCommand::By::to}})
      if (!is_known && text.word(word)) {
        command.criteria.emplace_back(by, is_reverse);
        is_known = true;
      }
    if (!is_known || command.criteria.size() > 20) return std::nullopt;
  } while (text.space());
  if (!text.take(')') || !text.space()) return std::nullopt;
  std::optional<std::string> charset = text.astring();
  if (!charset || !text.space()) return std::nullopt;
  std::optional<SearchCommand> search = parse_search(text);
  if (!search) return std::nullopt;
  command.search = std::move(*search);
  command.search.charset = std::move(*charset);
  return command;
}

}  // namespace holdfast::proxy
