// Finding messages (RFC 3501 6.4.4). Sans I/O: content comes through a loader.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "failover/mailbox_store.h"
#include "proxy/imap_command.h"
#include "proxy/mime.h"

namespace holdfast::proxy {

/// A message, read as far as is asked of it. Its structure is found once.
class ReadMessage {
 public:
  /// load gives the content's beginning, at least the whole header when is_whole is false.
  using Load = std::function<std::string(bool is_whole)>;
  ReadMessage(const failover::StoredMessage& stored, Load load) : stored_(stored), load_(std::move(load)) {}

  const failover::StoredMessage& stored() const { return stored_; }
  std::string_view header();
  const std::string& content();
  const MimePart& structure();

 private:
  const failover::StoredMessage& stored_;
  Load load_;
  std::string text_;
  bool is_read_ = false, is_whole_ = false;
  std::optional<MimePart> structure_;
};

struct SearchScope {
  std::uint32_t largest_number = 0, largest_uid = 0;
  std::int64_t now_s = 0;
};
/// number is the message's sequence number.
bool matches(const SearchKey& key, ReadMessage& message, std::uint32_t number, const SearchScope& scope);
/// Text as it is compared: case folded.
SearchKey folded(SearchKey key);

}  // namespace holdfast::proxy
