#include "journal/page_check.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstring>
#include <optional>
#include <vector>

#include "journal/files.h"

namespace holdfast::journal {
namespace {

using PageNumber = std::uint64_t;

// A page: number (8 bytes), padding (2), flags (2), the ends of the free room in its middle (2 each), then
// the places of its nodes (2 each).
constexpr std::size_t page_header = 16;
constexpr std::uint16_t branch_flag = 1, leaf_flag = 2;
// A node: size of its data, or the number of the page below (6 bytes), flags there too, size of its key (2),
// the key, the data.
constexpr std::size_t node_header = 8;
constexpr std::uint16_t big_data_flag = 1;  ///< the data is on pages of its own
// The first two pages, the older of which counts no more: magic, version, two that do not matter, two trees,
// the last page, the transaction.
constexpr std::uint32_t lmdb_magic = 0xBEEFC0DE;
constexpr std::size_t trees_at = 24, tree_size = 48, root_at = 40, depth_at = 6;
constexpr PageNumber no_page = ~PageNumber{0};
constexpr std::size_t most_free_pages = 10'000;  ///< of the list's tree; it has one or two

template <class Number>
Number number_at(const char* bytes) {
  Number number;
  std::memcpy(&number, bytes, sizeof number);
  return number;
}

struct Tree {
  PageNumber root;
  std::uint16_t depth;
};

struct Meta {
  std::uint64_t transaction = 0;
  std::uint32_t page_size = 0;
  PageNumber last_page = 0;
  Tree free{}, main{};
};

struct Node {
  PageNumber below;       ///< on a branch page
  std::string_view data;  ///< on a leaf page
  bool is_here;           ///< the data, and not on pages of its own
};

class PageCheck {
 public:
  PageCheck(const std::string& path, int file, const Meta& meta) : path_(path), file_(file), meta_(meta) {}

  Status run() {
    if (Status main = check_last(meta_.main); !main) return main;
    return check_all_free();
  }

 private:
  Error damaged(PageNumber page) const { return {ErrorCode::corrupt, fmt::format("{}: the file is damaged: page {}", path_, page)}; }

  /// From the root to the last leaf.
  Status check_last(const Tree& tree) {
    PageNumber page = tree.root;
    if (page == no_page) return {};
    for (std::uint16_t level = tree.depth; level > 0; --level) {
      Result<std::vector<Node>> nodes = read(page, level > 1 ? branch_flag : leaf_flag);
      if (!nodes) return nodes.error();
      page = nodes->back().below;
    }
    return {};
  }

  /// What a page on this list holds is overwritten.
  Status check_all_free() {
    std::vector<std::pair<PageNumber, std::uint16_t>> left;
    if (meta_.free.root != no_page) left.emplace_back(meta_.free.root, meta_.free.depth);
    for (std::size_t seen = 0; !left.empty(); ++seen) {
      auto [page, level] = left.back();
      left.pop_back();
      if (seen > most_free_pages || level == 0) return damaged(page);
      Result<std::vector<Node>> nodes = read(page, level > 1 ? branch_flag : leaf_flag);
      if (!nodes) return nodes.error();
      for (const Node& node : *nodes)
        if (level > 1)
          left.emplace_back(node.below, level - 1);
        else if (node.is_here && !is_list_of_pages(node.data))
          return damaged(page);
    }
    return {};
  }

  /// How many, and they, descending; there may be room behind them.
  bool is_list_of_pages(std::string_view data) const {
    constexpr std::size_t size = sizeof(PageNumber);
    if (data.size() < size || data.size() % size != 0) return false;
    auto count = number_at<PageNumber>(data.data());
    if (count > data.size() / size - 1) return false;
    PageNumber before = meta_.last_page + 1;
    for (std::size_t at = size; at <= count * size; at += size) {
      auto page = number_at<PageNumber>(data.data() + at);
      if (page < 2 || page >= before) return false;
      before = page;
    }
    return true;
  }

  /// A page's nodes, at least one; they are views of buffer_.
  Result<std::vector<Node>> read(PageNumber page, std::uint16_t kind) {
    if (page < 2 || page > meta_.last_page) return damaged(page);
    buffer_.resize(meta_.page_size);
    ssize_t got = read_at(file_, buffer_, page * meta_.page_size);
    if (got < 0) return Error{ErrorCode::io, fmt::format("{}: {}", path_, std::strerror(errno))};
    const char* bytes = buffer_.data();
    auto lower = number_at<std::uint16_t>(bytes + 12), upper = number_at<std::uint16_t>(bytes + 14);
    bool is_whole = static_cast<std::size_t>(got) == buffer_.size() && number_at<PageNumber>(bytes) == page &&
                    number_at<std::uint16_t>(bytes + 10) == kind && lower > page_header && lower % 2 == 0 && lower <= upper &&
                    upper <= meta_.page_size;
    if (!is_whole) return damaged(page);
    std::vector<Node> nodes;
    for (std::size_t at = page_header; at < lower; at += 2) {
      std::optional<Node> node = node_at(number_at<std::uint16_t>(bytes + at), upper, kind);
      if (!node) return damaged(page);
      nodes.push_back(*node);
    }
    return nodes;
  }

  std::optional<Node> node_at(std::size_t place, std::size_t upper, std::uint16_t kind) const {
    if (place < upper || place + node_header > buffer_.size()) return std::nullopt;
    const char* bytes = buffer_.data() + place;
    std::uint64_t low = number_at<std::uint32_t>(bytes), flags = number_at<std::uint16_t>(bytes + 4);
    std::size_t begin = place + node_header + number_at<std::uint16_t>(bytes + 6);
    std::size_t stored = kind == branch_flag ? 0 : (flags & big_data_flag) != 0 ? sizeof(PageNumber) : low;
    if (begin + stored > buffer_.size()) return std::nullopt;
    if (kind == branch_flag) return Node{low | flags << 32, {}, false};
    return Node{0, std::string_view(buffer_).substr(begin, stored), (flags & big_data_flag) == 0};
  }

  const std::string& path_;
  const int file_;
  const Meta meta_;
  std::string buffer_;
};

Tree tree_at(const char* bytes) { return {number_at<PageNumber>(bytes + root_at), number_at<std::uint16_t>(bytes + depth_at)}; }

std::optional<Meta> read_meta(int file, std::uint64_t place) {
  char bytes[page_header + trees_at + 2 * tree_size + 16];
  if (read_at(file, bytes, place) != static_cast<ssize_t>(sizeof bytes)) return std::nullopt;
  const char* meta = bytes + page_header;
  if (number_at<std::uint32_t>(meta) != lmdb_magic) return std::nullopt;
  const char* end = meta + trees_at + 2 * tree_size;
  // The page size stands in the padding of the first tree.
  return Meta{number_at<std::uint64_t>(end + 8), number_at<std::uint32_t>(meta + trees_at), number_at<PageNumber>(end), tree_at(meta + trees_at),
              tree_at(meta + trees_at + tree_size)};
}

}  // namespace

Status check_pages_written_next(const std::string& path) {
  FileDescriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!file) return Error{ErrorCode::io, fmt::format("{}: {}", path, std::strerror(errno))};
  std::optional<Meta> meta = read_meta(file.get(), 0);
  if (!meta || meta->page_size < 512 || meta->page_size > 65536) return {};
  std::optional<Meta> other = read_meta(file.get(), meta->page_size);
  if (other && other->transaction > meta->transaction) meta = other;
  return PageCheck(path, file.get(), *meta).run();
}

}  // namespace holdfast::journal
