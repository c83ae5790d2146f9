// The check of a journal's heads: signatures, their own chain, what they were signed for, and that published ones are there.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "journal/head.h"
#include "journal/verify.h"

namespace holdfast::journal {

/// Notes what is wrong in the verification that it was made for.
class HeadCheck {
 public:
  /// Reads the heads there are. To be made before the segments are listed: what is sealed later is no matter then.
  HeadCheck(std::string journal, const std::optional<PublicKey>& signer, Verification& all);

  /// Whose signatures count: the one given, or that of signing.pub in the journal, or that of the first head.
  const PublicKey* signer() const { return signer_ ? &*signer_ : nullptr; }
  bool has(std::uint32_t number) const { return heads_.count(number) > 0; }

  /// Signatures, and that each head names the one before it. newest is the segment that is not sealed.
  void check_lines(std::uint32_t newest);
  /// What a segment adds up to, against what was signed.
  void check_segment(std::uint32_t number, std::uint64_t records, const std::string& root, const std::string& link);
  /// Heads that were published, one a line of the file, must be here, word for word. Errors: not_found, corrupt (of the file).
  Status check_published(const std::string& path);

 private:
  void note(std::uint32_t segment, const std::string& what) { all_.findings.push_back({segment, 0, what}); }

  const std::string journal_;
  Verification& all_;
  std::optional<PublicKey> signer_;
  std::map<std::uint32_t, Result<std::string>> lines_;
  std::map<std::uint32_t, Head> heads_;
};

}  // namespace holdfast::journal
