#include "journal/sealed_store.h"

#include "journal/bytes.h"

namespace holdfast::journal {
namespace {

constexpr std::uint64_t store_map_size = 1ULL << 32;  // sparse
constexpr std::string_view store_associated = "sealed store";

}  // namespace

SealedStore::SealedStore(Environment environment, const Key& base)
    : environment_(std::move(environment)), hash_(derive_key(base, "holdfast store names")), key_(derive_key(base, "holdfast store values")) {}

Result<std::unique_ptr<SealedStore>> SealedStore::open(const std::string& path, const Key& base, Environment::Mode mode) {
  Result<Environment> environment = Environment::open(path, mode, mode == Environment::Mode::write ? store_map_size : 0);
  if (!environment) return environment.error();
  if (Status whole = environment->fill_up(); !whole) return whole.error();
  return std::unique_ptr<SealedStore>(new SealedStore(std::move(*environment), base));
}

Status SealedStore::put(const std::vector<Item>& items) {
  std::lock_guard lock(mutex_);
  Result<Transaction> transaction = Transaction::begin(environment_, Environment::Mode::write);
  if (!transaction) return transaction.error();
  for (const Item& item : items) {
    Hash hash = hash_(item.name);
    std::string_view key = view(hash).substr(0, 16);
    Status done;
    if (item.value.empty()) {
      done = transaction->erase(key);
    } else {
      ByteWriter plain;
      plain.string(item.name);
      plain.string(item.value);
      std::string sealed;
      seal(key_, plain.bytes(), store_associated, sealed);
      done = transaction->put(key, sealed);
    }
    if (!done) return done;
  }
  return transaction->commit();
}

Status SealedStore::each(const std::function<bool(Item&)>& visit) const {
  Result<Transaction> transaction = Transaction::begin(environment_, Environment::Mode::read);
  if (!transaction) return transaction.error();
  Result<Cursor> cursor = Cursor::open(*transaction);
  if (!cursor) return cursor.error();
  for (auto found = cursor->at_or_after(std::string_view("\0", 1));; found = cursor->next()) {
    if (!found) return found.error();
    if (!*found) return {};
    std::optional<std::string> plain = open_sealed(key_, (*found)->value, store_associated);
    if (!plain) return Error{ErrorCode::corrupt, environment_.path() + ": a value is damaged or sealed with another key"};
    ByteReader in(*plain);
    Item item;
    item.name = in.string();
    item.value = in.string();
    if (!in.ok() || !in.at_end()) return Error{ErrorCode::corrupt, environment_.path() + ": a value is damaged"};
    if (!visit(item)) return {};
  }
}

}  // namespace holdfast::journal
