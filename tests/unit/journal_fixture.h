// A journal in a folder of its own, and what tests do with it.
#pragma once

#include <fmt/format.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <catch2/catch.hpp>
#include <condition_variable>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <mutex>
#include <thread>

#include "journal/journal.h"
#include "journal/reader.h"
#include "journal/verify.h"

namespace holdfast::journal {

class TemporaryFolder {
 public:
  TemporaryFolder() {
    char name[] = "/tmp/holdfast-unit.XXXXXX";
    path = ::mkdtemp(name);
  }
  ~TemporaryFolder() { std::filesystem::remove_all(path); }
  std::string path;
};

/// Lets a test wait for a ticket.
class WaitingQueue : public CompletionQueue {
 public:
  void complete(std::vector<std::shared_ptr<Ticket>>&) override {
    std::lock_guard lock(mutex_);
    wake_.notify_all();
  }
  void wait_for(const Ticket& ticket) {
    std::unique_lock lock(mutex_);
    while (!ticket.is_settled()) wake_.wait_for(lock, std::chrono::milliseconds(10));
  }
  void wait_while_flooded(const Draft& draft) {
    std::unique_lock lock(mutex_);
    while (draft.is_flooded()) wake_.wait_for(lock, std::chrono::milliseconds(10));
  }

 private:
  std::mutex mutex_;
  std::condition_variable wake_;
};

/// Processes that do something again and again, until it fails or they are stopped. In one process, LMDB wants a file to be open
/// once at a time. To be made while there is only one thread.
class OtherProcesses {
 public:
  OtherProcesses(int count, const std::function<Status()>& work) {
    int ends[2];
    REQUIRE(::pipe(ends) == 0);
    for (int i = 0; i < count; ++i) {
      pid_t child = ::fork();
      if (child == 0) {
        Status done;
        while (done) done = work();
        std::string failure = done.error().message + "\n";
        ::_exit(::write(ends[1], failure.data(), failure.size()) > 0 ? 1 : 2);
      }
      children_.push_back(child);
    }
    ::close(ends[1]);
    failures_ = ends[0];
  }
  ~OtherProcesses() { stop(); }

  void signal(int number) {
    for (pid_t child : children_) ::kill(child, number);
  }
  /// What has failed, a line each.
  std::string stop() {
    std::string failed;
    for (pid_t child : std::exchange(children_, {})) {
      int status = 0;
      ::kill(child, SIGKILL);
      ::waitpid(child, &status, 0);
      if (WIFSIGNALED(status) && WTERMSIG(status) != SIGKILL) failed += fmt::format("signal {}\n", WTERMSIG(status));
    }
    char told[4096];
    for (ssize_t size; failures_ >= 0 && (size = ::read(failures_, told, sizeof told)) > 0;) failed.append(told, static_cast<std::size_t>(size));
    if (failures_ >= 0) ::close(std::exchange(failures_, -1));
    return failed;
  }

 private:
  std::vector<pid_t> children_;
  int failures_ = -1;
};

struct JournalFixture {
  TemporaryFolder folder;
  JournalOptions options;
  WaitingQueue queue;

  JournalFixture() {
    options.path = folder.path + "/journal";
    options.key.file = options.path + "/master.key";
  }

  /// Ends the newest segment, which must not be empty, and waits until another has begun.
  void end_segment(Journal& journal) {
    std::uint32_t number = journal.seal();
    while (list_segments(options.path)->back() <= number) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }

  Result<std::unique_ptr<Journal>> open() {
    return Journal::open(options, [this](bool is_error, const std::string& what) {
      std::lock_guard lock(mutex_);
      if (is_error) problems_.push_back(what);
    });
  }

  /// What the journals that were opened have told; their threads go on telling.
  std::vector<std::string> problems() {
    std::lock_guard lock(mutex_);
    return problems_;
  }

  /// Feeds content in pieces and waits for the commit. Returns the entry's id, or 0.
  RecordId add(Journal& journal, std::string_view content, std::size_t piece = 60000, std::int64_t time_us = now_us()) {
    auto ticket = std::make_shared<Ticket>(queue);
    Draft draft(journal.writer(), ticket);
    for (; !content.empty(); content.remove_prefix(std::min(piece, content.size()))) {
      draft.append(content.substr(0, piece));
      queue.wait_while_flooded(draft);
    }
    MessageRecord record;
    record.time_us = time_us;
    record.route = "primary";
    record.mail_from = "sender@example.net";
    record.message_id = "id-" + std::to_string(draft.size()) + "@x";
    record.recipients = {{"Someone@Example.org", "", "250 ok", Outcome::pending}};
    draft.finish(record);
    queue.wait_for(*ticket);
    return ticket->id();
  }

  std::string content_of(Reader& reader, RecordId id) {
    std::string content;
    auto entry = reader.entry(id);
    if (!entry) return "no entry: " + entry.error().message;
    Status read = reader.content(*entry, [&](std::string_view piece) {
      content += piece;
      return true;
    });
    if (!read) return "unreadable: " + read.error().message;
    return sha256(content) == entry->message.content_hash ? content : "wrong hash";
  }

  std::unique_ptr<Reader> reader() {
    auto reader = Reader::open(options.path, options.key);
    REQUIRE(reader);
    return std::move(*reader);
  }

  Verification verification() {
    VerifyOptions all;
    all.key = options.key;
    auto result = verify(options.path, all, {});
    REQUIRE(result);
    return std::move(*result);
  }

  /// Changes one byte of a file.
  static void flip(const std::string& path, std::uintmax_t offset) {
    FILE* file = std::fopen(path.c_str(), "r+b");
    std::fseek(file, static_cast<long>(offset), SEEK_SET);
    int byte = std::fgetc(file);
    std::fseek(file, static_cast<long>(offset), SEEK_SET);
    std::fputc(byte ^ 0x10, file);
    std::fclose(file);
  }

 private:
  std::mutex mutex_;
  std::vector<std::string> problems_;
};

inline std::string some_content(std::size_t size) {
  std::string content;
  for (std::size_t line = 0; content.size() < size; ++line) content += "line " + std::to_string(line) + " of the message\r\n";
  content.resize(size);
  return content;
}

inline OutcomeRecord outcome_of(RecordId entry, const std::string& reply) {
  OutcomeRecord outcome;
  outcome.time_us = now_us();
  outcome.entry = entry;
  outcome.changes.push_back({0, Outcome::forwarded, reply});
  return outcome;
}

}  // namespace holdfast::journal
