// What a client may say, and when: commands are cut out of its bytes, checked, and forwarded to the primary or answered here.
#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "proxy/address.h"
#include "proxy/log.h"
#include "proxy/parameters.h"
#include "proxy/session.h"
#include "proxy/session_content.h"

namespace holdfast::proxy {
namespace {

/// More commands than this without an answer is no honest pipelining.
constexpr std::size_t most_awaited = 1000;
/// RFC 4954 4: lines of an AUTH exchange may be this long.
constexpr std::size_t longest_auth_line = 12288;

}  // namespace

/// Takes what the client has sent, as far as it may be taken now. True when there was anything.
bool Session::take_commands() {
  bool has_moved = false;
  while (!is_over_ && !is_synchronising_ && (upstream_ || is_holding_ || content_) && lost_why_.empty() && awaited_.size() < most_awaited &&
         !client_.is_flooded() && !(upstream_ && upstream_->stream.is_flooded())) {
    bool is_primary_slow = capabilities_ && !capabilities_->has("PIPELINING") && !awaited_.empty();
    if (is_primary_slow) break;
    std::string_view input = client_.input();
    std::size_t end = input.find('\n');
    std::size_t longest = mode_ == Mode::auth ? std::max<std::size_t>(limits().line_length, longest_auth_line) : limits().line_length;
    bool is_too_long = (end == std::string_view::npos ? input.size() : end + 1) > longest;
    if (is_too_long) {
      say_goodbye(500, "5.5.2 Error: line too long");
      return true;
    }
    if (end == std::string_view::npos) break;
    if (inherits_greeting(input.substr(0, end + 1))) {
      needs_ungreeted_ = true;  // converse() opens another connection
      worker_.pool.give_back(settings_, route_, std::move(upstream_));
      break;
    }
    std::string line(input.substr(0, end + 1));
    client_.consume(end + 1);
    has_moved = true;
    if (std::string_view fault = fault_of_line_end(line); !fault.empty()) {
      say_goodbye(521, fmt::format("5.5.2 Error: {} received", fault));
      return true;
    }
    line.resize(line.size() - 2);
    take_command(line);
  }
  return has_moved;
}

/// The command comes from a client that has not greeted, on a connection on which somebody else has.
bool Session::inherits_greeting(std::string_view line) const {
  if (!upstream_ || upstream_->greeter == Greeter::nobody || !helo_line_.empty() || !awaited_.empty()) return false;
  Verb verb = parse_command(line.substr(0, line.find_last_not_of("\r\n") + 1)).verb;
  return verb != Verb::ehlo && verb != Verb::helo && verb != Verb::quit;
}

void Session::forward(Awaited awaited, std::string_view line) {
  awaited.line.assign(line);
  awaited.line += "\r\n";
  if (upstream_) send(awaited);
  awaited_.push_back(std::move(awaited));
}

/// A command to the primary, as this one takes it. The client may have been told of extensions by one that is gone.
void Session::send(const Awaited& awaited) {
  if (!offers_less_ || awaited.params.empty()) return upstream_->stream.write(awaited.line);
  std::string_view verb = awaited.verb == Verb::mail ? "MAIL FROM" : "RCPT TO";
  upstream_->stream.write(fmt::format("{}:<{}>{}\r\n", verb, awaited.address, offered_params(awaited.params, *capabilities_)));
}

void Session::answer(int code, std::string_view text) {
  Awaited own;
  own.verb = Verb::unknown;
  own.own_reply = own_reply(code, text);
  awaited_.push_back(std::move(own));
}

void Session::answer_error(int code, std::string_view text) {
  answer(code, text);
  count_error();
}

void Session::count_error() {
  if (++errors_ >= limits().errors) {
    log(LogLevel::warning, "refused", {{"session", id_}, {"client", to_string(facts_.client)}, {"reason", "limits.errors is reached"}});
    say_goodbye(421, fmt::format("4.7.0 {} Error: too many errors", hostname()));
  }
}

void Session::take_command(std::string_view line) {
  if (std::exchange(has_lost_login_, false)) {
    mode_ = Mode::commands;
    return answer(454, login_is_lost);
  }
  if (mode_ == Mode::auth) {
    Awaited awaited;
    awaited.verb = Verb::auth;
    is_synchronising_ = true;
    return forward(std::move(awaited), line);
  }
  if (++commands_ > limits().commands) {
    say_goodbye(421, fmt::format("4.7.0 {} Error: too many commands", hostname()));
    return;
  }
  Command command = parse_command(line);
  std::string_view fault = fault_of(command, line, told_ && told_->has("SMTPUTF8"));
  if (!fault.empty()) return answer_error(500, fmt::format("5.5.2 Error: {}", fault));
  if (content_ && !upstream_ && !may_interrupt_chunks(command.verb)) return;
  Awaited awaited;
  awaited.verb = command.verb;
  bool has_tls = client_.is_tls();
  switch (command.verb) {
    case Verb::mail:
    case Verb::rcpt: return take_envelope(command, line);
    case Verb::ehlo:
    case Verb::helo:
      awaited.address = std::string(command.argument);
      is_synchronising_ = true;
      greeting_sent_ = Clock::now();
      return forward(std::move(awaited), line);
    case Verb::data:
      if (!command.argument.empty()) return answer_error(501, "5.5.4 Syntax: DATA");
      is_synchronising_ = true;
      return forward(std::move(awaited), line);
    case Verb::bdat:
      bdat_ = parse_bdat(command.argument);
      // Where the next command begins depends on this number: when it is bad, there is no safe way on. And to a primary that knows no
      // chunks, its bytes would be commands.
      if (!bdat_) return say_goodbye(501, "5.5.4 Syntax: BDAT count [LAST]");
      if (!(told_ ? told_->has("CHUNKING") : takes_chunks())) return say_goodbye(502, "5.5.1 Error: command not implemented");
      if (bdat_->size > limits().message_size) return say_goodbye(552, "5.3.4 Error: chunk exceeds the message size limit");
      // So that there is but one way to read the number.
      line_ = fmt::format("BDAT {}{}\r\n", bdat_->size, bdat_->is_last ? " LAST" : "");
      mode_ = Mode::bdat;
      is_synchronising_ = true;
      return;
    case Verb::quit:
      mode_ = Mode::quitting;
      line_ = std::string(line) + "\r\n";
      is_synchronising_ = true;
      return;
    case Verb::starttls:
      if (listener_.tls != ListenerTls::starttls && !has_tls) return answer_error(502, "5.5.1 Error: command not implemented");
      if (has_tls) return answer_error(554, "5.5.1 Error: TLS already active");
      if (!command.argument.empty()) return answer_error(501, "5.5.4 Syntax: STARTTLS");
      mode_ = Mode::starttls;
      is_synchronising_ = true;
      return;
    case Verb::auth:
      if (listener_.role != Role::submission) return answer_error(503, "5.5.1 Error: authentication not enabled");
      pending_auth_ = upper(command.argument.substr(0, command.argument.find(' ')));
      is_synchronising_ = true;
      return forward(std::move(awaited), line);
    case Verb::forbidden: return answer_error(502, "5.5.1 Error: command not implemented");
    case Verb::unknown: is_synchronising_ = true; return forward(std::move(awaited), line);
    default: return forward(std::move(awaited), line);
  }
}

/// Whether the primary on this connection knows BDAT: as it said to the client's EHLO, or to somebody else's where there was none.
bool Session::takes_chunks() const { return capabilities_ ? capabilities_->has("CHUNKING") : upstream_ && upstream_->room->takes_chunks; }

/// In a series of chunks that no primary gets for the moment, only what ends the series may come, and further chunks.
bool Session::may_interrupt_chunks(Verb verb) {
  switch (verb) {
    case Verb::bdat: return true;
    case Verb::noop: answer(250, "2.0.0 Ok"); return false;
    case Verb::rset:
    case Verb::ehlo:
    case Verb::helo:
    case Verb::quit: content_.reset(); return true;
    default: answer_error(503, "5.5.1 Error: BDAT in progress"); return false;
  }
}

void Session::take_envelope(const Command& command, std::string_view line) {
  bool is_mail = command.verb == Verb::mail;
  std::string_view prefix = is_mail ? "FROM:" : "TO:";
  Awaited awaited;
  awaited.verb = command.verb;
  if (!upper(command.argument).starts_with(prefix)) {
    awaited.is_malformed = true;
    return forward(std::move(awaited), line);
  }
  std::optional<EnvelopeCommand> envelope = parse_envelope(command.argument, prefix);
  if (!envelope) return is_mail ? answer_error(501, "5.1.7 Bad sender address syntax") : answer_error(501, "5.1.3 Bad recipient address syntax");
  if (auto unoffered = first_unoffered(*envelope, told_ ? &*told_ : nullptr))
    return answer_error(555, fmt::format("5.5.4 Unsupported option: {}", *unoffered));
  awaited.address = std::string(envelope->address);
  awaited.params = std::string(envelope->params);
  for (const Parameter& parameter : envelope->parameters) {
    if (is_mail && parameter.key == "BODY") awaited.is_binary = upper(parameter.value) == "BINARYMIME";
    if (!is_mail || parameter.key != "SIZE") continue;
    std::optional<std::uint64_t> size = parse_number(parameter.value);
    if (size && *size > size_limit()) return answer_error(552, "5.3.4 Message size exceeds fixed limit");
  }
  auto awaited_recipients =
      static_cast<std::uint64_t>(std::count_if(awaited_.begin(), awaited_.end(), [](const Awaited& one) { return one.verb == Verb::rcpt; }));
  if (!is_mail && transaction_.recipients.size() + awaited_recipients >= limits().recipients)
    return answer_error(452, "4.5.3 Error: too many recipients");
  std::size_t wanted =
      is_mail || listener_.role == Role::submission ? route_ : route_of_domain(settings_->config, domain_of(envelope->address), route_);
  if (wanted == route_) return forward(std::move(awaited), line);
  // The recipient is another primary's. A message goes to one primary; the client sends the others theirs afterwards.
  if (transaction_.has_accepted_recipients() || awaited_recipients > 0)
    return answer(451, "4.5.3 Error: this recipient is on another server, send it a message of its own");
  line_ = std::string(line);
  mode_ = Mode::switching;
  is_synchronising_ = true;
}

}  // namespace holdfast::proxy
