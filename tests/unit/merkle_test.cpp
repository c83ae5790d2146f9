#include "journal/merkle.h"

#include <catch2/catch.hpp>

using namespace holdfast::journal;

namespace {

std::vector<Hash> leaves(std::size_t count) {
  std::vector<Hash> list;
  for (std::size_t i = 0; i < count; ++i) list.push_back(leaf_hash(std::to_string(i)));
  return list;
}

}  // namespace

TEST_CASE("roots are those of RFC 9162 (test vectors of certificate transparency)") {
  CHECK(to_hex(view(MerkleTree({}).root())) == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  std::vector<Hash> list;
  std::vector<std::string> inputs{"",
                                  std::string(1, '\0'),
                                  "\x10",
                                  "\x20\x21",
                                  "\x30\x31",
                                  "\x40\x41\x42\x43",
                                  "\x50\x51\x52\x53\x54\x55\x56\x57",
                                  "\x60\x61\x62\x63\x64\x65\x66\x67\x68\x69\x6a\x6b\x6c\x6d\x6e\x6f"};
  std::vector<std::string> roots{
      "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d", "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
      "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77", "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
      "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4", "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
      "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c", "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328"};
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    list.push_back(leaf_hash(inputs[i]));
    CHECK(to_hex(view(MerkleTree(list).root())) == roots[i]);
  }
}

TEST_CASE("every leaf's path leads to the root, from its own place only") {
  for (std::size_t count = 1; count <= 40; ++count) {
    MerkleTree tree(leaves(count));
    for (std::size_t i = 0; i < count; ++i) {
      std::vector<Hash> path = tree.path(i);
      Hash leaf = leaf_hash(std::to_string(i));
      REQUIRE(root_of_path(leaf, i, count, path) == tree.root());
      if (count > 1) {
        CHECK(root_of_path(leaf, (i + 1) % count, count, path) != tree.root());
        CHECK(root_of_path(leaf_hash("x"), i, count, path) != tree.root());
        path.pop_back();
        CHECK(root_of_path(leaf, i, count, path) != tree.root());
      }
      path = tree.path(i);
      path.push_back(leaf);
      CHECK_FALSE(root_of_path(leaf, i, count, path));
    }
    CHECK_FALSE(root_of_path(leaf_hash("0"), count, count, {}));
  }
}
