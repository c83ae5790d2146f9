#include "journal/catalog.h"

#include <algorithm>
#include <set>

#include "journal/bytes.h"
#include "journal/canonical_address.h"

namespace holdfast::journal {
namespace {

// Keys (FORMAT.md, "Catalog"): a letter, then big-endian numbers and hashes. The segment comes first, so that all of a
// segment's keys are neighbours: new entries touch few pages, and a segment's index goes as one range.
constexpr std::string_view position_key = "position";
constexpr std::string_view entries_key = "entries";
constexpr char outcome_letter = 'o';
constexpr char unsettled_letter = 'u';
constexpr char held_letter = 'h';
constexpr char erasure_letter = 'e';
constexpr char legal_hold_letter = 'l';
constexpr char state_letter = 't';
constexpr char removal_letter = 'g';
constexpr std::size_t hash_size = 16;
/// More than it grows by in the second that it may lag behind the log.
constexpr std::uint64_t space_kept = 4 * 1024 * 1024;
constexpr std::uint64_t catalog_map_size = 1ULL << 38;  // sparse; a larger one does not always fit beside ThreadSanitizer

std::string big_endian_32(std::uint32_t value) { return big_endian(value).substr(4); }
std::uint32_t from_big_endian_32(std::string_view bytes) {
  std::string wide = std::string(4, '\0') + std::string(bytes.substr(0, 4));
  return static_cast<std::uint32_t>(from_big_endian(wide.data()));
}

/// Recipients of one entry, as they are stored: the route's hash, then their indices, ascending.
struct Recipients {
  std::uint32_t route = 0;
  std::set<std::uint32_t> indices;
};

Recipients decode_recipients(std::string_view bytes) {
  Recipients recipients;
  if (bytes.size() < 4) return recipients;
  recipients.route = from_big_endian_32(bytes);
  for (bytes.remove_prefix(4); bytes.size() >= 4; bytes.remove_prefix(4)) recipients.indices.insert(from_big_endian_32(bytes));
  return recipients;
}

Result<Recipients> get_recipients(const Transaction& transaction, const std::string& key) {
  auto value = transaction.get(key);
  if (!value) return value.error();
  return *value ? decode_recipients(**value) : Recipients();
}

/// No key for an empty set.
Status put_recipients(Transaction& transaction, const std::string& key, const Recipients& recipients) {
  if (recipients.indices.empty()) return transaction.erase(key);
  std::string value = big_endian_32(recipients.route);
  for (std::uint32_t index : recipients.indices) value += big_endian_32(index);
  return transaction.put(key, value);
}

}  // namespace

std::string normalise(std::string_view text) {
  if (text.size() >= 2 && text.front() == '<' && text.back() == '>') text = text.substr(1, text.size() - 2);
  std::string normal(text.data(), text.size());
  for (char& c : normal)
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  return normal;
}

std::uint32_t route_hash(std::string_view route) {
  std::uint32_t hash = 2166136261U;  // FNV-1a
  for (char c : route) hash = (hash ^ static_cast<unsigned char>(c)) * 16777619U;
  return hash;
}

std::string Catalog::path_in(const std::string& journal) { return journal + "/catalog.lmdb"; }

std::string without_tag(std::string_view address) {
  std::size_t at = address.rfind('@'), tag = address.find('+');
  bool has_tag = at != std::string_view::npos && tag != std::string_view::npos && tag > 0 && tag < at;
  return has_tag ? std::string(address.substr(0, tag)).append(address.substr(at)) : std::string(address);
}

Result<std::unique_ptr<Catalog>> Catalog::open(const std::string& journal, const Key& base, Environment::Mode mode) {
  Result<Environment> environment = Environment::open(path_in(journal), mode, mode == Environment::Mode::write ? catalog_map_size : 0);
  if (!environment) return environment.error();
  if (Status whole = environment->fill_up(); !whole) return whole.error();
  std::unique_ptr<Catalog> catalog(new Catalog(std::move(*environment), derive_key(base, "holdfast catalog index")));
  if (mode == Environment::Mode::write) catalog->keep_space();
  return catalog;
}

/// A start on a full disk has to bring the catalog up to date.
void Catalog::keep_space() {
  const std::uint64_t used = environment_.used_bytes();
  if (used + space_kept / 2 <= kept_to_) return;
  environment_.reserve(space_kept);
  kept_to_ = used + space_kept;
}

Result<std::uint64_t> Catalog::number(const Transaction& transaction, std::string_view key) const {
  auto value = transaction.get(key);
  if (!value) return value.error();
  if (!*value) return std::uint64_t{0};
  if ((*value)->size() != 8) return Error{ErrorCode::corrupt, environment_.path() + ": a counter is damaged"};
  return from_big_endian((*value)->data());
}

Result<std::uint64_t> Catalog::number(std::string_view key) const {
  Result<Transaction> transaction = Transaction::begin(environment_, Environment::Mode::read);
  if (!transaction) return transaction.error();
  return number(*transaction, key);
}

Status Catalog::check() const {
  if (auto known = position(); !known) return known.error();
  if (auto known = entries(); !known) return known.error();
  if (auto known = unsettled(); !known) return known.error();
  if (auto known = unfinished_erasures(); !known) return known.error();
  if (auto known = legal_holds(); !known) return known.error();
  constexpr std::size_t batch = 4096;
  for (RecordId last = 0;;) {
    auto held = held_after(last, batch);
    if (!held) return held.error();
    if (held->size() < batch) return {};
    last = held->back().entry;
  }
}

Result<RecordId> Catalog::position() const { return number(position_key); }
Result<std::uint64_t> Catalog::entries() const { return number(entries_key); }

std::string Catalog::term_prefix(std::uint32_t segment, Term term, std::string_view text) const {
  std::unique_lock lock(hashing_);
  Hash hash = hash_(std::string(1, static_cast<char>(term)) + (term == Term::message_id ? normalise(text) : canonical_address(text)));
  lock.unlock();
  std::string prefix(1, static_cast<char>(term));
  prefix += big_endian_32(segment);
  prefix.append(view(hash).substr(0, hash_size));
  return prefix;
}

Status Catalog::apply(const std::vector<Committed>& records) {
  Result<Transaction> transaction = Transaction::begin(environment_, Environment::Mode::write);
  if (!transaction) return transaction.error();
  if (Status indexed = index(*transaction, records); !indexed) return indexed;
  Status committed = transaction->commit();
  if (committed) keep_space();
  return committed;
}

Status Catalog::rebuild(const std::function<Status(const Sink&)>& feed) {
  Result<Transaction> transaction = Transaction::begin(environment_, Environment::Mode::write);
  if (!transaction) return transaction.error();
  if (Status dropped = transaction->drop_all(); !dropped) return dropped;
  Status fed = feed([&](const std::vector<Committed>& records) { return index(*transaction, records); });
  return fed ? transaction->commit() : fed;
}

Status Catalog::index(Transaction& transaction, const std::vector<Committed>& records) const {
  Result<std::uint64_t> position = number(transaction, position_key);
  if (!position) return position.error();
  Result<std::uint64_t> entries = number(transaction, entries_key);
  if (!entries) return entries.error();
  RecordId last = *position;
  for (const Committed& record : records) {
    if (record.id <= last) continue;
    last = record.id;
    *entries += record.kind == RecordKind::message;
    if (record.encoded.empty()) continue;  // erased
    Status indexed = record.kind == RecordKind::message   ? index_message(transaction, record)
                     : record.kind == RecordKind::outcome ? index_outcome(transaction, record)
                     : record.kind == RecordKind::state   ? index_state(transaction, record)
                     : record.kind == RecordKind::erasure ? index_erasure(transaction, record)
                     : record.kind == RecordKind::legal_hold
                         ? transaction.put(legal_hold_letter + big_endian(record.id), big_endian_32(record.segment))
                         : Status();
    if (!indexed) return indexed;
  }
  if (last == *position) return {};
  if (Status put = transaction.put(position_key, big_endian(last)); !put) return put;
  return transaction.put(entries_key, big_endian(*entries));
}

Status Catalog::index_erasure(Transaction& transaction, const Committed& record) {
  std::optional<ErasureRecord> erasure = decode_erasure(record.encoded);
  bool has_work = !erasure || !erasure->records.empty();  // of a whole segment, that was pruned, nothing is left to do
  return has_work ? transaction.put(erasure_letter + big_endian(record.id), big_endian_32(record.segment)) : Status();
}

Status Catalog::index_message(Transaction& transaction, const Committed& record) const {
  std::optional<MessageRecord> message = decode_message(record.encoded);
  if (!message) return Error{ErrorCode::corrupt, environment_.path() + ": a message record cannot be read"};
  auto add = [&](Term term, std::string_view text) { return transaction.put(term_prefix(record.segment, term, text) + big_endian(record.id), {}); };
  for (const Recipient& recipient : message->recipients) {
    if (Status put = add(Term::recipient, recipient.address); !put) return put;
    std::string untagged = without_tag(recipient.address);
    if (untagged == recipient.address) continue;
    if (Status put = add(Term::recipient, untagged); !put) return put;
  }
  if (Status put = add(Term::sender, message->mail_from); !put) return put;
  if (!message->message_id.empty())
    if (Status put = add(Term::message_id, message->message_id); !put) return put;
  Recipients pending, held;
  pending.route = held.route = route_hash(message->route);
  for (std::uint32_t i = 0; i < message->recipients.size(); ++i) {
    if (message->recipients[i].outcome == Outcome::pending) pending.indices.insert(i);
    if (message->recipients[i].outcome == Outcome::held) held.indices.insert(i);
  }
  if (Status put = put_recipients(transaction, unsettled_letter + big_endian(record.id), pending); !put) return put;
  return put_recipients(transaction, held_letter + big_endian(record.id), held);
}

Status Catalog::index_outcome(Transaction& transaction, const Committed& record) const {
  std::optional<OutcomeRecord> outcome = decode_outcome(record.encoded);
  if (!outcome) return Error{ErrorCode::corrupt, environment_.path() + ": an outcome record cannot be read"};
  std::string pending_key = unsettled_letter + big_endian(outcome->entry), held_key = held_letter + big_endian(outcome->entry);
  auto pending = get_recipients(transaction, pending_key), held = get_recipients(transaction, held_key);
  if (!pending) return pending.error();
  if (!held) return held.error();
  if (held->route == 0) held->route = pending->route;
  for (const OutcomeRecord::Change& change : outcome->changes) {
    std::set<std::uint32_t> meant = change.recipient == OutcomeRecord::every_pending ? pending->indices : std::set{change.recipient};
    for (std::uint32_t index : meant) {
      pending->indices.erase(index);
      held->indices.erase(index);
      if (change.outcome == Outcome::held) held->indices.insert(index);
    }
  }
  if (Status put = put_recipients(transaction, pending_key, *pending); !put) return put;
  if (Status put = put_recipients(transaction, held_key, *held); !put) return put;
  return transaction.put(outcome_letter + big_endian(outcome->entry) + big_endian(record.id), big_endian_32(record.segment));
}

Status Catalog::index_state(Transaction& transaction, const Committed& record) const {
  std::optional<StateRecord> state = decode_state(record.encoded);
  if (!state) return Error{ErrorCode::corrupt, environment_.path() + ": a state record cannot be read"};
  return transaction.put(state_letter + state->route, big_endian_32(record.segment) + big_endian(record.id));
}

Result<std::vector<std::string>> Catalog::keys_with(std::string_view prefix) const {
  Result<Transaction> transaction = Transaction::begin(environment_, Environment::Mode::read);
  if (!transaction) return transaction.error();
  Result<Cursor> cursor = Cursor::open(*transaction);
  if (!cursor) return cursor.error();
  std::vector<std::string> keys;
  for (auto item = cursor->at_or_after(prefix);; item = cursor->next()) {
    if (!item) return item.error();
    if (!*item || !(*item)->key.starts_with(prefix)) return keys;
    keys.emplace_back((*item)->key);
  }
}

Result<std::vector<Catalog::Place>> Catalog::unfinished_erasures() const { return places_with(erasure_letter); }

Result<std::vector<Catalog::Place>> Catalog::legal_holds() const { return places_with(legal_hold_letter); }

/// Of keys that are the letter and a record's id.
Result<std::vector<Catalog::Place>> Catalog::places_with(char letter) const {
  std::vector<Place> places;
  Status read = each_with(letter, sizeof(RecordId), [&](std::string_view id, std::string_view value) {
    places.push_back({from_big_endian_32(value), from_big_endian(id.data())});
  });
  if (!read) return read.error();
  return places;
}

/// Items with keys that are the letter and a number of so many bytes, in order.
Status Catalog::each_with(char letter, std::size_t size, const std::function<void(std::string_view number, std::string_view value)>& visit) const {
  Result<Transaction> transaction = Transaction::begin(environment_, Environment::Mode::read);
  if (!transaction) return transaction.error();
  Result<Cursor> cursor = Cursor::open(*transaction);
  if (!cursor) return cursor.error();
  for (auto item = cursor->at_or_after(letter + std::string(size, '\0'));; item = cursor->next()) {
    if (!item) return item.error();
    if (!*item || (*item)->key.size() != 1 + size || (*item)->key.front() != letter) return {};
    visit((*item)->key.substr(1), (*item)->value);
  }
}

Status Catalog::finish_erasure(RecordId id) {
  Result<Transaction> transaction = Transaction::begin(environment_, Environment::Mode::write);
  if (!transaction) return transaction.error();
  if (Status erased = transaction->erase(erasure_letter + big_endian(id)); !erased) return erased;
  return transaction->commit();
}

Status Catalog::forget(std::uint32_t segment, const std::set<RecordId>& entries) {
  std::vector<std::string> keys;
  // Terms end in the entry's id, all others begin with it.
  for (Term term : {Term::recipient, Term::sender, Term::message_id}) {
    auto terms = keys_with(static_cast<char>(term) + big_endian_32(segment));
    if (!terms) return terms.error();
    for (std::string& key : *terms)
      if (entries.contains(from_big_endian(key.data() + key.size() - 8))) keys.push_back(std::move(key));
  }
  for (RecordId id : entries)
    for (char letter : {outcome_letter, unsettled_letter, held_letter}) {
      auto others = keys_with(letter + big_endian(id));
      if (!others) return others.error();
      std::move(others->begin(), others->end(), std::back_inserter(keys));
    }
  Result<Transaction> transaction = Transaction::begin(environment_, Environment::Mode::write);
  if (!transaction) return transaction.error();
  for (const std::string& key : keys)
    if (Status erased = transaction->erase(key); !erased) return erased;
  return transaction->commit();
}

Status Catalog::begin_removal(const Removal& removal) {
  Result<Transaction> transaction = Transaction::begin(environment_, Environment::Mode::write);
  if (!transaction) return transaction.error();
  std::string numbers = big_endian(removal.first) + big_endian(removal.end) + big_endian(removal.entries);
  if (Status put = transaction->put(removal_letter + big_endian_32(removal.segment), numbers); !put) return put;
  return transaction->commit();
}

Result<std::vector<Catalog::Removal>> Catalog::removals() const {
  std::vector<Removal> removals;
  Status read = each_with(removal_letter, sizeof(std::uint32_t), [&](std::string_view segment, std::string_view value) {
    if (value.size() != 3 * sizeof(std::uint64_t)) return;  // damage; `journal rebuild` makes all this anew
    const char* numbers = value.data();
    removals.push_back({from_big_endian_32(segment), from_big_endian(numbers), from_big_endian(numbers + 8), from_big_endian(numbers + 16)});
  });
  if (!read) return read.error();
  return removals;
}

Result<bool> Catalog::forget_part(const Removal& removal) {
  constexpr std::size_t part = 20'000;
  Result<Transaction> transaction = Transaction::begin(environment_, Environment::Mode::write);
  if (!transaction) return transaction.error();
  std::vector<std::string> keys;
  {
    Result<Cursor> cursor = Cursor::open(*transaction);
    if (!cursor) return cursor.error();
    auto collect = [&](const std::string& from, const std::string& to) -> Status {
      auto item = cursor->at_or_after(from);
      for (; item && *item && (*item)->key < to && keys.size() < part; item = cursor->next()) keys.emplace_back((*item)->key);
      return item ? Status() : item.error();
    };
    for (Term term : {Term::recipient, Term::sender, Term::message_id}) {
      char letter = static_cast<char>(term);
      if (Status read = collect(letter + big_endian_32(removal.segment), letter + big_endian_32(removal.segment + 1)); !read) return read.error();
    }
    for (char letter : {outcome_letter, unsettled_letter, held_letter})
      if (Status read = collect(letter + big_endian(removal.first), letter + big_endian(removal.end)); !read) return read.error();
  }
  for (const std::string& key : keys)
    if (Status erased = transaction->erase(key); !erased) return erased.error();
  if (Status committed = transaction->commit(); !committed) return committed.error();
  return keys.size() == part;
}

Status Catalog::end_removal(const Removal& removal) {
  auto holds = legal_holds();
  if (!holds) return holds.error();
  Result<Transaction> transaction = Transaction::begin(environment_, Environment::Mode::write);
  if (!transaction) return transaction.error();
  for (const Place& place : *holds) {
    if (place.segment != removal.segment) continue;
    if (Status erased = transaction->erase(legal_hold_letter + big_endian(place.id)); !erased) return erased;
  }
  if (Status erased = transaction->erase(removal_letter + big_endian_32(removal.segment)); !erased) return erased;
  Result<std::uint64_t> counted = number(*transaction, entries_key);
  if (!counted) return counted.error();
  if (Status put = transaction->put(entries_key, big_endian(*counted - std::min(*counted, removal.entries))); !put) return put;
  return transaction->commit();
}

Result<std::vector<RecordId>> Catalog::find(std::uint32_t segment, Term term, std::string_view text, RecordId from, bool backwards,
                                            std::size_t most) const {
  std::string prefix = term_prefix(segment, term, text);
  Result<Transaction> transaction = Transaction::begin(environment_, Environment::Mode::read);
  if (!transaction) return transaction.error();
  Result<Cursor> cursor = Cursor::open(*transaction);
  if (!cursor) return cursor.error();
  std::vector<RecordId> ids;
  std::string place = prefix + big_endian(from);
  auto item = cursor->at_or_after(place);
  // Backwards from what stands after the place.
  if (backwards && item && !*item) item = cursor->last();
  if (backwards && item && *item && (*item)->key > place) item = cursor->previous();
  while (item && *item && ids.size() < most) {
    std::string_view key = (*item)->key;
    if (!key.starts_with(prefix) || key.size() != prefix.size() + 8) break;
    ids.push_back(from_big_endian(key.data() + prefix.size()));
    item = backwards ? cursor->previous() : cursor->next();
  }
  if (!item) return item.error();
  return ids;
}

Result<std::set<RecordId>> Catalog::entries_in(std::uint32_t segment) const {
  Result<Transaction> transaction = Transaction::begin(environment_, Environment::Mode::read);
  if (!transaction) return transaction.error();
  Result<Cursor> cursor = Cursor::open(*transaction);
  if (!cursor) return cursor.error();
  std::set<RecordId> ids;
  for (Term term : {Term::recipient, Term::sender, Term::message_id}) {
    std::string prefix = static_cast<char>(term) + big_endian_32(segment);
    for (auto item = cursor->at_or_after(prefix);; item = cursor->next()) {
      if (!item) return item.error();
      if (!*item || !(*item)->key.starts_with(prefix)) break;
      std::string_view key = (*item)->key;
      if (key.size() > prefix.size() + 8) ids.insert(from_big_endian(key.data() + key.size() - 8));
    }
  }
  return ids;
}

Result<std::vector<Catalog::Place>> Catalog::outcomes_of(RecordId entry) const {
  Result<Transaction> transaction = Transaction::begin(environment_, Environment::Mode::read);
  if (!transaction) return transaction.error();
  Result<Cursor> cursor = Cursor::open(*transaction);
  if (!cursor) return cursor.error();
  std::vector<Place> places;
  std::string prefix = outcome_letter + big_endian(entry);
  for (auto item = cursor->at_or_after(prefix);; item = cursor->next()) {
    if (!item) return item.error();
    if (!*item || !(*item)->key.starts_with(prefix)) return places;
    if ((*item)->key.size() != prefix.size() + 8 || (*item)->value.size() != 4) continue;
    places.push_back({from_big_endian_32((*item)->value), from_big_endian((*item)->key.data() + prefix.size())});
  }
}

Result<std::vector<RecordId>> Catalog::unsettled() const {
  auto keys = keys_with(std::string(1, unsettled_letter));
  if (!keys) return keys.error();
  std::vector<RecordId> ids;
  for (const std::string& key : *keys)
    if (key.size() == 9) ids.push_back(from_big_endian(key.data() + 1));
  return ids;
}

Result<std::vector<Catalog::Held>> Catalog::held_after(RecordId id, std::size_t most) const {
  Result<Transaction> transaction = Transaction::begin(environment_, Environment::Mode::read);
  if (!transaction) return transaction.error();
  Result<Cursor> cursor = Cursor::open(*transaction);
  if (!cursor) return cursor.error();
  std::vector<Held> found;
  for (auto item = cursor->at_or_after(held_letter + big_endian(id + 1)); found.size() < most; item = cursor->next()) {
    if (!item) return item.error();
    if (!*item || (*item)->key.size() != 9 || (*item)->key.front() != held_letter) break;
    Recipients recipients = decode_recipients((*item)->value);
    found.push_back({from_big_endian((*item)->key.data() + 1), recipients.route, {recipients.indices.begin(), recipients.indices.end()}});
  }
  return found;
}

Result<std::optional<Catalog::Place>> Catalog::state_of(std::string_view route) const {
  Result<Transaction> transaction = Transaction::begin(environment_, Environment::Mode::read);
  if (!transaction) return transaction.error();
  auto value = transaction->get(state_letter + std::string(route));
  if (!value) return value.error();
  if (!*value || (*value)->size() != 12) return std::optional<Place>();
  return std::optional(Place{from_big_endian_32(**value), from_big_endian((*value)->data() + 4)});
}

Result<std::vector<Catalog::Place>> Catalog::states() const {
  auto keys = keys_with(std::string(1, state_letter));
  if (!keys) return keys.error();
  std::vector<Place> places;
  for (const std::string& key : *keys) {
    auto place = state_of(std::string_view(key).substr(1));
    if (!place) return place.error();
    if (*place) places.push_back(**place);
  }
  return places;
}

}  // namespace holdfast::journal
