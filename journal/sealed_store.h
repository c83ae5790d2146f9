// A small store of names and values on disk that shows neither: keys are keyed hashes, values are sealed.
//
// For what must survive a restart and is not, or not all, in the log: the directory of recipients, a primary's last EHLO.
#pragma once

#include <functional>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "journal/crypto.h"
#include "journal/lmdb.h"

namespace holdfast::journal {

class SealedStore {
 public:
  /// Opens or makes the file at path. Its keys are derived from base, the key ring's base key.
  static Result<std::unique_ptr<SealedStore>> open(const std::string& path, const Key& base, Environment::Mode mode);

  struct Item {
    std::string name, value;  ///< an empty value removes the name
  };
  /// Stores items in one synced commit. Thread-safe.
  Status put(const std::vector<Item>& items);
  /// Hands every item to visit until it returns false. Thread-safe. Error: corrupt.
  Status each(const std::function<bool(Item&)>& visit) const;

 private:
  SealedStore(Environment environment, const Key& base);
  Environment environment_;
  std::mutex mutex_;
  KeyedHash hash_;
  Key key_;
};

}  // namespace holdfast::journal
