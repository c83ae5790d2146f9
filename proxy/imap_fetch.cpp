// ImapSession: FETCH (RFC 3501 6.4.5), and reading messages for other commands.
#include <fmt/format.h>

#include <algorithm>

#include "proxy/imap_format.h"
#include "proxy/imap_session.h"
#include "proxy/log.h"

namespace holdfast::proxy {
namespace {

/// Messages from this size on are sent piece by piece, as the client takes them, rather than from memory.
constexpr std::uint64_t large = 1 << 20;
/// So many entries that were read go into one record.
constexpr std::size_t most_unrecorded = 100;
/// The structure of a large message is kept for what is asked of it next, unless it has more parts than this.
constexpr std::size_t most_kept_parts = 200;

std::size_t parts_in(const MimePart& part) {
  std::size_t count = 1;
  for (const MimePart& child : part.children) count += parts_in(child);
  return count;
}

}  // namespace

ReadMessage ImapSession::read(const failover::StoredMessage& message) const {
  return ReadMessage(message, [this, &message](bool is_whole) {
    std::string text;
    if (is_whole) text.reserve(message.size);
    Status done = mailbox_->content(message, [&](std::string_view piece) {
      text += piece;
      return is_whole || header_of(text).end == text.size();
    });
    if (!done) {
      has_read_failed_ = true;
      log(LogLevel::error, "mailbox", {{"person", person_}, {"problem", done.error().message}});
    }
    return text;
  });
}

Task<void> ImapSession::fetch(ImapText& text, bool by_uid) {
  std::optional<SequenceSet> set = text.space() ? text.sequence_set() : std::nullopt;
  std::optional<FetchItems> items = set && text.space() ? parse_fetch(text) : std::nullopt;
  if (!items) {
    bad("the arguments are not understood");
    co_return;
  }
  if (by_uid) items->uid = true;
  if (items->modseq) learn_condstore();
  bool marks_seen =
      !is_read_only_ && std::any_of(items->sections.begin(), items->sections.end(), [](const BodySection& one) { return !one.is_peek; });
  std::vector<std::uint32_t> uids = chosen(*set, by_uid);
  if (marks_seen) {
    auto mark = [](failover::StoredMessage& message) { return !(message.flags & failover::seen) && (message.flags |= failover::seen, true); };
    std::uint64_t before = view_->folder.modseq;
    if (Status done = mailbox_->update(*view_, uids, mark); !done)
      log(LogLevel::error, "mailbox", {{"person", person_}, {"problem", done.error().message}});
    if (view_->folder.modseq != before) items->flags = true;
    if (shown_modseq_ == before) shown_modseq_ = view_->folder.modseq;
  }
  bool is_missing = false;
  unreadable_ = 0;
  for (std::uint32_t uid : uids) {
    const failover::StoredMessage* message = view_->find(uid);
    if (!message) {
      is_missing = true;
      continue;
    }
    if (message->modseq <= items->changed_since) continue;
    bool is_large = message->size * items->sections.size() >= large;
    if (is_large)
      co_await fetch_large(*message, *items);
    else
      fetch_one(*message, *items);
    if (read_.size() >= most_unrecorded) record_reading();
    if (state_ == State::logout) co_return;
    bool goes_on = co_await breathe();
    if (!goes_on) co_return;
  }
  show_news(false);
  if (unreadable_ > 0)
    no("[SERVERBUG] some of these messages are damaged and cannot be shown; tell your administrator");
  else
    ok(is_missing ? some_are_gone : "done");
}

/// What is asked of a message beside its content.
std::string ImapSession::facts_of(const failover::StoredMessage& message, ReadMessage& content, const FetchItems& items) {
  std::string out;
  auto add = [&](std::string_view name, std::string_view value) {
    if (!out.empty()) out += ' ';
    out.append(name).append(" ").append(value);
  };
  if (items.uid) add("UID", std::to_string(message.uid));
  if (items.flags && has_new_keyword(message)) show_flag_names();
  if (items.flags) add("FLAGS", "(" + flags_of(message) + ")");
  if (items.modseq) add("MODSEQ", "(" + std::to_string(message.modseq) + ")");
  if (items.date) add("INTERNALDATE", imap_date(message.date_us));
  if (items.size) add("RFC822.SIZE", std::to_string(message.size));
  if (items.envelope) add("ENVELOPE", imap_envelope(content.header()));
  if (items.body) add("BODY", imap_structure(content.content(), structure_of(content), false));
  if (items.body_structure) add("BODYSTRUCTURE", imap_structure(content.content(), structure_of(content), true));
  return out;
}

/// Clients ask for the structure of a message and then for its parts, large ones in many pieces.
const MimePart& ImapSession::structure_of(ReadMessage& content) {
  const failover::StoredMessage& message = content.stored();
  if (message.size >= large && kept_ && kept_->entry == message.entry && kept_->blob == message.blob) return kept_->structure;
  const MimePart& structure = content.structure();
  bool is_kept = message.size >= large && !has_read_failed_ && parts_in(structure) <= most_kept_parts;
  if (is_kept) kept_ = KeptStructure{message.entry, message.blob, structure};
  return structure;
}

/// What a section means in the message, read as far as it must be; the text that its range is of goes to
/// text.
std::optional<SectionOctets> ImapSession::octets_of(ReadMessage& content, const BodySection& section, std::string_view& text) {
  bool is_header = section.part.empty() && (section.what == BodySection::What::header || section.what == BodySection::What::fields ||
                                            section.what == BodySection::What::fields_not);
  bool is_whole = section.part.empty() && section.what == BodySection::What::all;
  if (is_header) {
    text = content.header();
    MimePart part;
    part.header = {0, text.size()};
    part.body = {text.size(), text.size()};
    return imap_section(text, part, section);
  }
  const failover::StoredMessage& message = content.stored();
  if (settings_->config.journal.access_log && message.entry != 0) read_.insert(message.entry);
  if (is_whole && message.size >= large) return SectionOctets{partial_of({0, static_cast<std::size_t>(message.size)}, section), {}};
  const MimePart* structure = is_whole ? nullptr : &structure_of(content);
  // Of a large message it is enough to know where the octets are.
  bool needs_text = message.size < large || section.what == BodySection::What::fields || section.what == BodySection::What::fields_not;
  if (needs_text) text = content.content();
  if (is_whole) return SectionOctets{partial_of({0, text.size()}, section), {}};
  return imap_section(text, *structure, section);
}

/// Nothing is sent when the message cannot be read: a part of it would look like the whole.
void ImapSession::fetch_one(const failover::StoredMessage& message, const FetchItems& items) {
  has_read_failed_ = false;
  ReadMessage content = read(message);
  std::string out = facts_of(message, content, items);
  for (const BodySection& section : items.sections) {
    std::string_view text;
    std::optional<SectionOctets> octets = octets_of(content, section, text);
    if (!out.empty()) out += ' ';
    out += section.label + " " + (octets ? imap_literal(octets->of(text)) : "NIL");
  }
  if (has_read_failed_) {
    ++unreadable_;
    return;
  }
  stream_.write(fmt::format("* {} FETCH (", number_of(message.uid)));
  stream_.write(out);
  stream_.write(")\r\n");
}

/// The same for a message that is not to wait in memory until the client has taken it: where the octets are
/// is found first, and whether all of them can be read, then they go out piece by piece. The message is copied: the folder may change meanwhile.
Task<void> ImapSession::fetch_large(failover::StoredMessage message, const FetchItems& items) {
  has_read_failed_ = false;
  std::string facts;
  std::vector<std::optional<SectionOctets>> sections;
  {
    ReadMessage content = read(message);
    facts = facts_of(message, content, items);
    std::string_view text;
    for (const BodySection& section : items.sections) sections.push_back(octets_of(content, section, text));
  }
  for (const auto& section : sections) {
    Range left = section && !section->fields ? section->range : Range{};
    while (left.size() > 0 && !has_read_failed_) {
      auto piece = mailbox_->piece(message, left.begin);
      has_read_failed_ = !piece || piece->empty();
      if (has_read_failed_)
        log(LogLevel::error, "mailbox", {{"person", person_}, {"problem", piece ? "content is missing" : piece.error().message}});
      else
        left.begin += std::min(piece->size(), left.size());
      bool goes_on = co_await breathe();
      if (!goes_on) co_return;
    }
  }
  if (has_read_failed_) {
    ++unreadable_;
    co_return;
  }
  stream_.write(fmt::format("* {} FETCH ({}", number_of(message.uid), facts));
  for (std::size_t i = 0; i < sections.size(); ++i) {
    stream_.write(fmt::format("{}{} ", i == 0 && facts.empty() ? "" : " ", items.sections[i].label));
    if (!sections[i]) {
      stream_.write("NIL");
    } else if (sections[i]->fields) {
      stream_.write(imap_literal(*sections[i]->fields));
    } else {
      bool is_sent = co_await send_octets(message, sections[i]->range);
      if (!is_sent) co_return;
    }
  }
  stream_.write(")\r\n");
}

/// False when the connection is over: of a literal that was begun there is no way back.
Task<bool> ImapSession::send_octets(const failover::StoredMessage& message, Range range) {
  stream_.write(fmt::format("{{{}}}\r\n", range.size()));
  while (range.size() > 0) {
    auto piece = mailbox_->piece(message, range.begin);
    if (!piece || piece->empty()) {
      log(LogLevel::error, "mailbox", {{"person", person_}, {"problem", piece ? "it was erased while it was sent" : piece.error().message}});
      state_ = State::logout;
      co_return false;
    }
    std::string_view octets = std::string_view(*piece).substr(0, range.size());
    stream_.write(octets);
    range.begin += octets.size();
    bool goes_on = co_await breathe();
    if (!goes_on) {
      state_ = State::logout;
      co_return false;
    }
  }
  co_return true;
}

}  // namespace holdfast::proxy
