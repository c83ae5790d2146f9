// ImapSession: commands as they come in, with their literals (RFC 3501 2.2.1, 4.3; RFC 7888).
#include <algorithm>

#include "proxy/imap_session.h"

namespace holdfast::proxy {
namespace {

constexpr std::size_t longest_line = 64 * 1024, longest_command = 1 << 20;
/// Messages that are put into folders are in memory until they are stored. Of all that come in at once, so much, and of one person's,
/// beyond the first; the others wait. Who sends nothing more of one keeps its room only so long.
constexpr std::uint64_t most_in_memory = 256ULL << 20, most_of_one_person = most_in_memory / 4;
constexpr auto pace_of_waiting = std::chrono::milliseconds(50);
constexpr auto longest_standstill = std::chrono::minutes(2);

}  // namespace

/// Room for a large command in memory, as soon as others have left enough. False when that takes too long.
Task<bool> ImapSession::reserve(std::uint64_t bytes, Deadline by) {
  auto has_room = [&] {
    const std::uint64_t own = service_.in_memory_of(person_);
    bool is_within_share = own == 0 || own + bytes <= most_of_one_person;
    return is_within_share && (service_.in_memory == 0 || service_.in_memory + bytes <= most_in_memory);
  };
  while (!has_room()) {
    if (Clock::now() >= by || !stop_why_.empty() || !stream_.is_alive()) co_return false;
    co_await wakeup_.wait(Clock::now() + pace_of_waiting);
  }
  service_.in_memory += bytes;
  reserved_ += bytes;
  co_return true;
}

void ImapSession::release() {
  if (command_.capacity() > longest_command) std::string().swap(command_);
  service_.in_memory -= std::exchange(reserved_, 0);
}

/// Waits for more from the client. False when the connection is to end.
Task<bool> ImapSession::wait_for_input(Deadline deadline) {
  if (!may_go_on() || stream_.is_broken() || stream_.is_ended()) co_return false;
  stream_.flush();
  bool in_time = co_await wakeup_.wait(deadline);
  if (!in_time) stop_why_ = "you were away for long";
  co_return in_time;
}

/// Appends a line to the command, without its end. False when the connection is to end.
Task<bool> ImapSession::read_line(Deadline deadline) {
  std::size_t longest = is_early() ? longest_early_line : longest_line;
  for (;;) {
    std::string_view input = stream_.input();
    std::size_t end = input.find('\n');
    if (end != std::string_view::npos) {
      bool is_whole_line_end = end > 0 && input[end - 1] == '\r';
      command_ += input.substr(0, is_whole_line_end ? end - 1 : end);
      stream_.consume(end + 1);
      co_return true;
    }
    if (input.size() > longest) {
      stop_why_ = "the line is too long";
      co_return false;
    }
    bool has_more = co_await wait_for_input(deadline);
    if (!has_more) co_return false;
  }
}

/// Appends a literal's bytes to the command. False when the connection is to end.
Task<bool> ImapSession::read_literal(LiteralMark mark, Deadline deadline) {
  if (mark.size > longest_command) {
    bool has_room = co_await reserve(mark.size, deadline);
    if (!has_room) co_return false;
  }
  if (mark.waits) {
    stream_.write("+ OK\r\n");
    stream_.flush();
  }
  Deadline standstill = reserved_ > 0 ? worker_.loop.now() + longest_standstill : deadline;
  for (std::uint64_t left = mark.size; left > 0;) {
    std::string_view input = stream_.input();
    std::size_t taken = std::min<std::uint64_t>(left, input.size());
    command_ += input.substr(0, taken);
    stream_.consume(taken);
    left -= taken;
    if (taken > 0 && reserved_ > 0) standstill = worker_.loop.now() + longest_standstill;
    if (taken > 0) continue;
    bool has_more = co_await wait_for_input(std::min(deadline, standstill));
    if (!has_more) co_return false;
  }
  co_return true;
}

/// Of a command with its literals, in bytes; APPEND brings a message.
std::uint64_t ImapSession::longest_now() const {
  if (is_early()) return longest_early_line;
  std::size_t word = std::min(command_.size(), command_.find(' ') + 1);
  bool is_append = is_same_name(std::string_view(command_).substr(word, 7), "APPEND ");
  return is_append ? settings_->config.limits.message_size + longest_command : longest_command;
}

/// A whole command with its literals. False when the connection is to end.
Task<bool> ImapSession::read_command() {
  release();
  command_.clear();
  Deadline deadline = worker_.loop.now() + (is_early() ? Duration(longest_early_silence) : Duration(longest_silence));
  for (;;) {
    std::size_t begin = command_.size();
    bool has_line = co_await read_line(deadline);
    if (!has_line) co_return false;
    std::optional<LiteralMark> mark = literal_at_end(std::string_view(command_).substr(begin));
    if (!mark) co_return true;
    command_ += "\r\n";
    std::uint64_t most = longest_now();
    bool is_too_big = command_.size() > most || mark->size > most - command_.size();
    if (!is_too_big) {
      bool has_literal = co_await read_literal(*mark, deadline);
      if (!has_literal) co_return false;
      continue;
    }
    tag_ = command_.substr(0, command_.find(' '));
    bad("[TOOBIG] this is more than is taken here");
    if (!mark->waits) {
      stop_why_ = "too much was sent";
      co_return false;
    }
    command_.clear();
  }
}

}  // namespace holdfast::proxy
