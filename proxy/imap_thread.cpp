#include <algorithm>
#include <map>
#include <memory>
#include <set>

#include "proxy/imap_sort.h"

namespace holdfast::proxy {
namespace {

struct Thread {
  const SortFacts* message = nullptr;  ///< null: known from references only
  Thread* parent = nullptr;
  std::vector<Thread*> children;
  std::int64_t date() const {
    if (message) return message->sent_s;
    return children.empty() ? 0 : children.front()->date();
  }
  std::uint32_t number() const { return message ? message->number : children.empty() ? 0 : children.front()->number(); }
};

bool comes_before(const Thread* a, const Thread* b) { return std::pair(a->date(), a->number()) < std::pair(b->date(), b->number()); }

/// True also for what is too deep to be looked through: it is not linked any deeper.
bool is_ancestor(const Thread* maybe, const Thread* of) {
  constexpr int deepest = 1000;
  for (int depth = 0; of && depth < deepest; of = of->parent, ++depth)
    if (of == maybe) return true;
  return of != nullptr;
}

void link(Thread* parent, Thread* child) {
  if (child->parent || is_ancestor(child, parent)) return;
  child->parent = parent;
  parent->children.push_back(child);
}

/// Deep threads are flattened: each level costs the client two parentheses and us a call.
constexpr int deepest_thread = 200;

void flatten(Thread* thread, std::vector<Thread*>& kept) {
  for (std::vector<Thread*> left{thread}; !left.empty();) {
    Thread* one = left.back();
    left.pop_back();
    left.insert(left.end(), one->children.begin(), one->children.end());
    one->children.clear();
    if (one->message) kept.push_back(one);
  }
}

void collect(Thread* thread, std::vector<Thread*>& kept, int depth) {
  if (depth >= deepest_thread) return flatten(thread, kept);
  std::vector<Thread*> below;
  for (Thread* child : thread->children) collect(child, below, depth + 1);
  thread->children = std::move(below);
  std::sort(thread->children.begin(), thread->children.end(), comes_before);
  if (thread->message) return kept.push_back(thread);
  bool is_needed = depth == 0 && thread->children.size() > 1;
  if (is_needed) return kept.push_back(thread);
  kept.insert(kept.end(), thread->children.begin(), thread->children.end());
}

void print(const Thread* thread, std::string& out) {
  if (thread->message) out += std::to_string(thread->message->number);
  if (thread->children.size() == 1) {
    if (thread->message) out += ' ';
    return print(thread->children.front(), out);
  }
  if (!thread->children.empty() && thread->message) out += ' ';
  for (const Thread* child : thread->children) {
    out += '(';
    print(child, out);
    out += ')';
  }
}

std::string print_all(const std::vector<Thread*>& roots) {
  std::string out;
  for (const Thread* root : roots) {
    out += '(';
    print(root, out);
    out += ')';
  }
  return out;
}

using Nodes = std::vector<std::unique_ptr<Thread>>;

Thread* add_node(Nodes& nodes) {
  nodes.push_back(std::make_unique<Thread>());
  return nodes.back().get();
}

/// RFC 5256 REFERENCES, step 1: each message is the child of the last one that it refers to.
void link_by_references(const std::vector<SortFacts>& all, Nodes& nodes) {
  std::map<std::string, Thread*> by_id;
  auto known = [&](const std::string& id) {
    Thread*& slot = by_id[id];
    if (!slot) slot = add_node(nodes);
    return slot;
  };
  for (const SortFacts& facts : all) {
    Thread* own = facts.message_id.empty() ? add_node(nodes) : known(facts.message_id);
    if (own->message) own = add_node(nodes);  // the same Message-ID again
    own->message = &facts;
    Thread* parent = nullptr;
    for (const std::string& id : facts.references) {
      Thread* reference = known(id);
      if (parent) link(parent, reference);
      parent = reference;
    }
    if (!parent || parent == own) continue;
    if (own->parent) std::erase(own->parent->children, own);
    own->parent = nullptr;
    link(parent, own);
  }
}

const SortFacts* first_of(const Thread* root) { return root->message ? root->message : root->children.front()->message; }

/// Of each subject the thread that others of that subject are joined to (RFC 5256 REFERENCES, step 5.B).
std::map<std::string, Thread*> threads_by_subject(const std::vector<Thread*>& roots) {
  std::map<std::string, Thread*> by_subject;
  for (Thread* root : roots) {
    const SortFacts* facts = first_of(root);
    if (!facts || facts->subject.empty()) continue;
    Thread*& slot = by_subject[facts->subject];
    bool is_better = !slot || (slot->message && !root->message) || (slot->message && first_of(slot)->is_reply && !facts->is_reply);
    if (is_better) slot = root;
  }
  return by_subject;
}

/// Joins a thread to another of the same subject, which keeps its place in the list.
void join(Thread* root, Thread* other, Nodes& nodes) {
  if (!other->message && !root->message) {
    other->children.insert(other->children.end(), root->children.begin(), root->children.end());
  } else if (!other->message || (first_of(root)->is_reply && !first_of(other)->is_reply)) {
    other->children.push_back(root);
  } else {
    Thread* moved = add_node(nodes);
    *moved = *other;
    other->message = nullptr;
    other->children = {moved, root};
  }
}

/// RFC 5256 REFERENCES, steps 5 and 6: replies whose references are lost find their thread by the subject, and stand there in order of time.
std::vector<Thread*> joined_by_subject(const std::vector<Thread*>& roots, Nodes& nodes) {
  std::map<std::string, Thread*> by_subject = threads_by_subject(roots);
  std::vector<Thread*> kept;
  for (Thread* root : roots) {
    const SortFacts* facts = first_of(root);
    auto found = facts ? by_subject.find(facts->subject) : by_subject.end();
    bool is_alone = found == by_subject.end() || found->second == root;
    if (is_alone)
      kept.push_back(root);
    else
      join(root, found->second, nodes);
  }
  for (Thread* root : kept) std::sort(root->children.begin(), root->children.end(), comes_before);
  std::sort(kept.begin(), kept.end(), comes_before);
  return kept;
}

}  // namespace

std::string thread_by_references(std::vector<SortFacts> all) {
  Nodes nodes;
  link_by_references(all, nodes);
  std::vector<Thread*> roots;
  for (const auto& one : nodes)
    if (!one->parent) collect(one.get(), roots, 0);
  std::sort(roots.begin(), roots.end(), comes_before);
  return print_all(joined_by_subject(roots, nodes));
}

std::string thread_by_subject(std::vector<SortFacts> all) {
  std::map<std::string, std::vector<const SortFacts*>> groups;
  auto by_date = [](const SortFacts* a, const SortFacts* b) { return std::pair(a->sent_s, a->number) < std::pair(b->sent_s, b->number); };
  for (const SortFacts& facts : all) groups[facts.subject].push_back(&facts);
  std::vector<std::vector<const SortFacts*>> threads;
  for (auto& [subject, messages] : groups) {
    std::sort(messages.begin(), messages.end(), by_date);
    threads.push_back(std::move(messages));
  }
  std::sort(threads.begin(), threads.end(), [&](const auto& a, const auto& b) { return by_date(a.front(), b.front()); });
  std::string out;
  for (const auto& messages : threads) {
    out += '(' + std::to_string(messages.front()->number);
    if (messages.size() == 2) out += ' ' + std::to_string(messages[1]->number);
    if (messages.size() > 2) {
      out += ' ';
      for (std::size_t i = 1; i < messages.size(); ++i) out += '(' + std::to_string(messages[i]->number) + ')';
    }
    out += ')';
  }
  return out;
}

}  // namespace holdfast::proxy
