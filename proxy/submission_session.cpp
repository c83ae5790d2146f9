#include "proxy/submission_session.h"

#include <fmt/format.h>

#include <algorithm>

#include "journal/catalog.h"
#include "proxy/address.h"
#include "proxy/base64.h"
#include "proxy/log.h"
#include "proxy/mailbox_login.h"
#include "proxy/mime.h"
#include "proxy/reply.h"
#include "proxy/stand_in.h"

namespace holdfast::proxy {
bool asks_accounts(const ListenerConfig& listener, const Settings& settings, Control& control) {
  if (listener.auth != SubmissionAuth::automatic) return listener.auth == SubmissionAuth::accounts;
  std::size_t route = listener.route.empty() ? 0 : find_route(settings.config, listener.route).value_or(0);
  return settings.config.mailbox.open == MailboxOpen::always || control.board(settings.config.routes[route].name).is_held();
}

SubmissionSession::SubmissionSession(Worker& worker, MailboxService& service, const ListenerConfig& listener, FileDescriptor socket,
                                     const SocketAddress& peer, const SocketAddress& own, std::unique_ptr<ConnectionCounts::Place> place)
    : worker_(worker),
      service_(service),
      settings_(worker.settings),
      listener_(listener),
      id_(fmt::format("{:x}", worker.shared.next_session.fetch_add(1, std::memory_order_relaxed))),
      wakeup_(worker.loop),
      stream_(std::move(socket), wakeup_),
      client_(to_endpoint(peer)),
      server_(to_endpoint(own)),
      place_(std::move(place)) {
  service_.submissions.insert(this);
}

SubmissionSession::~SubmissionSession() {
  service_.submissions.erase(this);
  worker_.shared.connections.leave();
}

Task<void> SubmissionSession::run(std::unique_ptr<SubmissionSession> session) {
  SubmissionSession& self = *session;
  if (self.listener_.tls == ListenerTls::implicit) {
    bool is_secure = co_await self.start_tls();
    if (!is_secure) co_return;
  }
  self.reply(220, self.settings_->config.hostname + " ESMTP Holdfast, emergency submission");
  std::string line;
  while (!self.is_over_) {
    bool has_line = co_await self.read_line(line);
    if (!has_line) break;
    if (++self.commands_ > self.settings_->config.limits.commands) {
      self.reply(421, "4.7.0 Error: too many commands");
      break;
    }
    co_await self.serve(line);
    if (self.errors_ >= self.settings_->config.limits.errors) {
      self.reply(421, "4.7.0 Error: too many errors");
      break;
    }
  }
  self.stream_.flush();
  Deadline patience = self.worker_.loop.now() + std::chrono::seconds(10);
  bool in_time = true;
  while (in_time && self.stream_.unsent() > 0 && !self.stream_.is_broken()) in_time = co_await self.wakeup_.wait(patience);
  self.stream_.close();
}

void SubmissionSession::reply(int code, std::string_view text) { stream_.write(fmt::format("{} {}\r\n", code, text)); }

void SubmissionSession::error(int code, std::string_view text) {
  ++errors_;
  reply(code, text);
}

void SubmissionSession::reset() {
  is_open_ = false;
  mail_from_.clear();
  mail_params_.clear();
  recipients_.clear();
}

bool SubmissionSession::may_log_in_here() const { return stream_.is_tls() || is_loopback(client_.address); }

Task<bool> SubmissionSession::start_tls() {
  SSL* ssl = settings_->tls->new_server();
  if (!ssl) co_return false;
  std::string failure = co_await stream_.handshake(ssl, true, worker_.loop.now() + settings_->config.limits.timeouts.command);
  if (!failure.empty()) log(LogLevel::info, "tls", {{"session", id_}, {"client", to_string(client_)}, {"problem", failure}});
  co_return failure.empty();
}

/// The next line without its line end. False when the connection is over.
Task<bool> SubmissionSession::read_line(std::string& line) {
  Deadline deadline = worker_.loop.now() + settings_->config.limits.timeouts.command;
  for (;;) {
    std::string_view input = stream_.input();
    if (std::size_t end = input.find('\n'); end != std::string_view::npos && end < settings_->config.limits.line_length) {
      line = input.substr(0, end + 1);
      stream_.consume(end + 1);
      std::string_view fault = fault_of_line_end(line);
      if (fault.empty())
        line.resize(line.size() - 2);
      else
        reply(521, fmt::format("5.5.2 Error: {} received", fault));
      co_return fault.empty();
    }
    if (input.size() >= settings_->config.limits.line_length) {
      reply(500, "5.5.2 Error: line too long");
      co_return false;
    }
    stream_.flush();
    if (!stream_.is_alive()) co_return false;
    if (worker_.is_draining) {
      reply(421, "4.3.2 Service is shutting down, try again later");
      co_return false;
    }
    bool in_time = co_await wakeup_.wait(deadline);
    if (!in_time) {
      reply(421, "4.4.2 Error: timeout exceeded");
      co_return false;
    }
  }
}

Task<void> SubmissionSession::serve(std::string line) {
  Command command = parse_command(line);
  if (std::string_view fault = fault_of(command, line, true); !fault.empty()) {
    error(500, fmt::format("5.5.2 Error: {}", fault));
    co_return;
  }
  switch (command.verb) {
    case Verb::ehlo:
    case Verb::helo: greet(command); break;
    case Verb::starttls: {
      bool is_offered = listener_.tls == ListenerTls::starttls && !stream_.is_tls();
      if (!is_offered || !stream_.input().empty()) {
        // RFC 3207 4.2: what came before TLS may be anybody's.
        is_over_ = is_offered;
        error(is_offered ? 554 : 503, is_offered ? "5.5.1 Error: something was sent before TLS began" : "5.5.1 Error: STARTTLS is not offered");
        break;
      }
      reply(220, "2.0.0 Ready to start TLS");
      stream_.flush();
      bool is_secure = co_await start_tls();
      is_over_ = !is_secure;
      helo_.clear();
      person_.clear();
      reset();
      break;
    }
    case Verb::auth: {
      std::string argument(command.argument);
      co_await authenticate(std::move(argument));
      break;
    }
    case Verb::mail: mail(command); break;
    case Verb::rcpt: rcpt(command); break;
    case Verb::data: co_await data(); break;
    case Verb::rset:
      reset();
      reply(250, "2.0.0 Ok");
      break;
    case Verb::noop: reply(250, "2.0.0 Ok"); break;
    case Verb::vrfy: reply(252, "2.0.0 Send some mail, it will be tried"); break;
    case Verb::help: reply(214, "2.0.0 RFC 6409"); break;
    case Verb::quit:
      reply(221, "2.0.0 Bye");
      is_over_ = true;
      break;
    default: error(502, "5.5.2 Error: command not recognized");
  }
}

void SubmissionSession::greet(const Command& command) {
  if (command.argument.empty()) return error(501, "5.5.4 Syntax: EHLO hostname");
  helo_ = command.argument;
  reset();
  if (command.verb == Verb::helo) return reply(250, settings_->config.hostname);
  std::string list = fmt::format("250-{}\r\n250-PIPELINING\r\n250-SIZE {}\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n250-DSN\r\n", settings_->config.hostname,
                                 settings_->config.limits.message_size);
  if (listener_.tls == ListenerTls::starttls && !stream_.is_tls()) list += "250-STARTTLS\r\n";
  if (may_log_in_here()) list += "250-AUTH PLAIN LOGIN\r\n";
  stream_.write(list + "250 ENHANCEDSTATUSCODES\r\n");
}

/// A line of the SASL exchange; empty when the client gave up or went.
Task<std::string> SubmissionSession::ask(std::string challenge) {
  stream_.write("334 " + challenge + "\r\n");
  std::string line;
  bool has_line = co_await read_line(line);
  co_return has_line&& line != "*" ? line : "";
}

Task<void> SubmissionSession::authenticate(std::string argument) {
  if (!person_.empty() || helo_.empty()) {
    error(503, "5.5.1 Error: not now");
    co_return;
  }
  if (!may_log_in_here()) {
    error(538, "5.7.11 Begin TLS first: passwords do not go over the network in the clear");
    co_return;
  }
  std::size_t blank = argument.find(' ');
  std::string mechanism = upper(argument.substr(0, blank)), initial = blank == std::string::npos ? "" : argument.substr(blank + 1);
  std::optional<Credentials> credentials;
  if (mechanism == "PLAIN") {
    if (initial.empty()) initial = co_await ask("");
    credentials = parse_plain(initial);
  } else if (mechanism == "LOGIN") {
    if (initial.empty()) initial = co_await ask("VXNlcm5hbWU6");
    std::string password;
    if (!initial.empty()) password = co_await ask("UGFzc3dvcmQ6");
    auto name = decode_base64(initial), secret = decode_base64(password);
    if (name && secret) credentials = Credentials{*name, *secret};
  } else {
    error(504, "5.5.4 Only PLAIN and LOGIN are known here");
    co_return;
  }
  if (!credentials || credentials->address.empty()) {
    error(501, "5.5.2 This is no answer to AUTH");
    co_return;
  }
  LoginResult result = co_await log_in(service_, worker_.settings, std::move(*credentials), client_.address, wakeup_);
  switch (result.verdict) {
    case LoginResult::Verdict::welcome:
      person_ = result.person;
      reply(235, "2.7.0 Welcome");
      break;
    case LoginResult::Verdict::wrong: error(535, "5.7.8 The address or the password is wrong"); break;
    case LoginResult::Verdict::closed: error(535, "5.7.8 The emergency mailbox is closed: your usual mail works"); break;
    case LoginResult::Verdict::wait: error(454, fmt::format("4.7.0 Too many wrong passwords; try again in {} seconds", result.wait_s)); break;
    case LoginResult::Verdict::unavailable: error(454, "4.7.0 Not possible at this moment; try again"); break;
  }
}

void SubmissionSession::shut_out(const std::string& person) {
  if (person_ != person) return;
  person_.clear();
  reset();
}

bool SubmissionSession::is_own(const std::string& address) const {
  std::string canonical = service_.directory.canonical(address), untagged = service_.directory.canonical(journal::without_tag(address));
  for (const std::string& own : service_.directory.own_addresses_of(person_))
    if (own == canonical || own == untagged) return true;
  return false;
}

/// What people send because the primary is out, or was until just now, is to be in their usual mailbox afterwards.
bool SubmissionSession::gets_copy() const {
  const Config& config = settings_->config;
  const RouteConfig& own = config.routes[route_of(person_)];
  bool is_for_hold = worker_.shared.control.board(own.name).is_held() || service_.gate.opens(*settings_, person_) == MailboxOpen::hold;
  return config.mailbox.returns_sent && !own.is_egress && is_for_hold;
}

/// Whether what goes by a route can be held for it, or need not be. Answers when it cannot.
bool SubmissionSession::has_room_on(std::size_t route) {
  const RouteConfig& config = settings_->config.routes[route];
  const RouteBoard& board = worker_.shared.control.board(config.name);
  std::optional<Reply> refusal = board.is_held() ? StandIn::no_room(config, board) : std::nullopt;
  if (refusal) stream_.write(refusal->wire);
  return !refusal;
}

/// Whether the person may write to so many more recipients now. Answers when that is too many.
bool SubmissionSession::may_write_to(std::size_t recipients) {
  const std::uint64_t most = worker_.settings->config.mailbox.recipients_per_hour;
  if (most == 0 || service_.pace.recipients_of(person_, worker_.loop.now()) + recipients <= most) return true;
  log(LogLevel::warning, "refused", {{"session", id_}, {"person", person_}, {"reason", "mailbox.recipients_per_hour is reached"}});
  error(450, fmt::format("4.7.1 Error: you may write to {} recipients in an hour and no more, try again later", most));
  return false;
}

void SubmissionSession::mail(const Command& command) {
  if (person_.empty()) return error(530, "5.7.0 Log in first");
  if (is_open_) return error(503, "5.5.1 Error: nested MAIL command");
  if (!service_.gate.is_open(*worker_.settings, person_, worker_.loop.now()))
    return error(550, "5.7.1 The emergency mailbox is closed: your usual mail works again");
  std::optional<EnvelopeCommand> envelope = parse_envelope(command.argument, "FROM:");
  if (!envelope) return error(501, "5.1.7 Bad sender address syntax");
  for (const Parameter& one : envelope->parameters) {
    bool is_known = one.key == "SIZE" || one.key == "BODY" || one.key == "SMTPUTF8" || one.key == "AUTH" || one.key == "RET" || one.key == "ENVID";
    // Content comes by DATA: as lines.
    bool is_binary = one.key == "BODY" && upper(one.value) != "7BIT" && upper(one.value) != "8BITMIME";
    if (!is_known || is_binary) return error(555, fmt::format("5.5.4 Unsupported option: {}", one.text));
    std::optional<std::uint64_t> size = one.key == "SIZE" ? parse_number(one.value) : std::nullopt;
    if (size && *size > settings_->config.limits.message_size) return error(552, "5.3.4 Message size exceeds fixed limit");
  }
  std::string address(envelope->address);
  if (!address.empty() && !is_own(address)) return error(553, fmt::format("5.7.1 <{}>: not one of your addresses", address));
  if (gets_copy() && !has_room_on(route_of(person_))) return;
  is_open_ = true;
  mail_from_ = std::move(address);
  mail_params_.clear();
  for (const Parameter& one : envelope->parameters)
    if (one.key != "SIZE" && one.key != "AUTH") mail_params_ += (mail_params_.empty() ? "" : " ") + std::string(one.text);
  reply(250, "2.1.0 Ok");
}

/// A route that names the domain, or whose people have such addresses; the world else.
std::size_t SubmissionSession::route_of(const std::string& address) const {
  const Config& config = settings_->config;
  std::string_view domain = domain_of(address);
  std::size_t egress = config.routes.size() - 1;
  bool has_egress = config.routes.back().is_egress;
  std::size_t route = route_of_domain(config, domain, has_egress ? egress : 0);
  return is_served(config, domain) || !has_egress || service_.directory.has_domain(domain) ? route : egress;
}

void SubmissionSession::rcpt(const Command& command) {
  if (!is_open_) return error(503, "5.5.1 Error: need MAIL command");
  std::optional<EnvelopeCommand> envelope = parse_envelope(command.argument, "TO:");
  if (!envelope || !is_domain(domain_of(envelope->address))) return error(501, "5.1.3 Bad recipient address syntax");
  for (const Parameter& one : envelope->parameters)
    if (one.key != "NOTIFY" && one.key != "ORCPT") return error(555, "5.5.4 Unsupported option: " + one.key);
  if (recipients_.size() >= settings_->config.limits.recipients) return error(452, "4.5.3 Error: too many recipients");
  Recipient recipient{std::string(envelope->address), std::string(envelope->params), 0};
  recipient.route = route_of(recipient.address);
  if (!settings_->config.routes[recipient.route].is_egress) {
    failover::Directory::Answer answer = service_.directory.look_up(recipient.address, journal::now_us());
    if (answer.verdict == failover::Directory::Verdict::refused)
      return error(550, fmt::format("5.1.1 <{}>: there is no such colleague", recipient.address));
  }
  if (!has_room_on(recipient.route) || !may_write_to(recipients_.size() + 1)) return;
  recipients_.push_back(std::move(recipient));
  reply(250, "2.1.5 Ok");
}

}  // namespace holdfast::proxy
