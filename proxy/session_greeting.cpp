// How a session begins, and begins anew: the balancer's header, limits, TLS, and who greets on the primary's connection.
#include <fmt/format.h>

#include <algorithm>

#include "proxy/log.h"
#include "proxy/session.h"
#include "proxy/session_content.h"

namespace holdfast::proxy {

Task<bool> Session::greet() {
  if (!listener_.proxy_protocol_from.empty()) {
    bool is_read = co_await read_proxy_header();
    if (!is_read) co_return false;
  }
  if (!enter_limits()) co_return false;
  log(LogLevel::debug, "connect", {{"session", id_}, {"client", to_string(facts_.client)}});
  if (listener_.tls == ListenerTls::implicit) {
    bool is_secure = co_await start_tls_with_client();
    if (!is_secure) co_return false;
  }
  follow_state();
  if (!is_holding_) {
    Reached reached = co_await reach_primary("");
    if (reached != Reached::live && reached != Reached::holding) {
      turn_away(reached);
      co_return false;
    }
  }
  client_.poll_input();
  if (!client_.input().empty()) {
    log(LogLevel::warning, "refused", {{"session", id_}, {"client", to_string(facts_.client)}, {"reason", "talked before the greeting"}});
    say_goodbye(554, "5.5.1 Error: talked before the greeting");
    co_return false;
  }
  client_.write(is_holding_ ? stand_in().greeting().wire : upstream_->greeting.wire);
  co_return true;
}

Task<bool> Session::read_proxy_header() {
  const auto& trusted = listener_.proxy_protocol_from;
  bool is_trusted = std::any_of(trusted.begin(), trusted.end(), [&](const Network& network) { return network.contains(facts_.client.address); });
  if (!is_trusted) co_return true;  // it speaks for itself; a header from it will be refused as early talk or a bad command
  Deadline deadline = after(limits().timeouts.connect);
  for (;;) {
    ProxyHeader header;
    std::size_t consumed = 0;
    ProxyParse state = parse_proxy_header(client_.input(), header, consumed);
    if (state == ProxyParse::complete) {
      client_.consume(consumed);
      if (!header.is_local) facts_ = {header.source, header.destination};
      co_return true;
    }
    bool goes_on = state == ProxyParse::incomplete && client_.is_alive();
    if (goes_on) goes_on = co_await wakeup_.wait(deadline);
    if (!goes_on) {
      log(LogLevel::warning, "refused",
          {{"session", id_}, {"client", to_string(facts_.client)}, {"reason", "no valid PROXY header from a balancer that must send one"}});
      co_return false;
    }
  }
}

bool Session::enter_limits() {
  place_ = worker_.shared.connections.place_for(facts_.client.address, limits().per_client);
  if (!place_) {
    log(LogLevel::warning, "refused", {{"session", id_}, {"client", to_string(facts_.client)}, {"reason", "limits.per_client is reached"}});
    say_goodbye(421, fmt::format("4.7.0 {} Error: too many connections from {}", hostname(), facts_.client.address));
    return false;
  }
  return true;
}

Task<bool> Session::start_tls_with_client() {
  SSL* ssl = settings_->tls->new_server();
  if (!ssl) co_return false;
  std::string failure = co_await client_.handshake(ssl, true, after(limits().timeouts.command));
  if (failure.empty()) co_return true;
  log(LogLevel::info, "tls", {{"session", id_}, {"client", to_string(facts_.client)}, {"problem", failure}});
  co_return false;
}

Task<Session::Next> Session::client_starttls() {
  if (!client_.input().empty()) {
    log(LogLevel::warning, "refused", {{"session", id_}, {"client", to_string(facts_.client)}, {"reason", "plain text after STARTTLS"}});
    say_goodbye(554, "5.5.1 Error: plain text after STARTTLS");
    co_return Next::close;
  }
  client_.flush(own_reply(220, "2.0.0 Ready to start TLS"));
  bool is_secure = co_await start_tls_with_client();
  if (!is_secure) co_return Next::close;
  // RFC 3207 4.2: all that was learned before is forgotten; the client's next EHLO starts the primary anew too.
  bool is_spent = upstream_ && !worker_.pool.takes_another_greeting(*upstream_);
  if (transaction_.is_open || is_spent) drop_upstream();
  end_transaction();
  forget_capabilities();
  helo_line_.clear();
  co_return Next::go_on;
}

void Session::forget_capabilities() {
  capabilities_.reset();
  told_.reset();
  offers_less_ = false;
}

void Session::take_ehlo_reply(Reply& reply) {
  capabilities_ = Capabilities::of(reply);
  told_ = capabilities_;
  offers_less_ = false;
  if (!is_holding_) board_->learn_ehlo(reply);
  if (upstream_) upstream_->room->takes_chunks = takes_chunks();
  EhloPolicy policy;
  policy.offers_starttls = listener_.tls == ListenerTls::starttls && !client_.is_tls();
  policy.passes_auth = listener_.role == Role::submission;
  policy.message_size = limits().message_size;
  client_.write(filter_ehlo(reply, policy));
}

/// A client's first greeting, on a connection on which somebody else has greeted: not every primary takes a second one.
bool Session::comes_second(const Awaited& awaited) const {
  bool is_greeting = awaited.verb == Verb::ehlo || awaited.verb == Verb::helo;
  return is_greeting && upstream_ && upstream_->greeter != Greeter::nobody && helo_line_.empty();
}

/// converse() opens another connection, and asks again.
void Session::greet_elsewhere(bool was_slow) {
  spent_ = SpentConnection{upstream_->address, upstream_->greetings, was_slow};
  needs_ungreeted_ = true;
  upstream_->may_be_reused = false;
  worker_.pool.give_back(settings_, route_, std::move(upstream_));
}

/// The client's greeting was accepted. Where that was sooner than on a connection on which others had greeted, these were too many.
void Session::learn_greetings() {
  failover::PrimaryHabits& habits = worker_.pool.habits();
  const std::string& address = upstream_->room->name;
  auto took = std::chrono::duration_cast<Duration>(Clock::now() - greeting_sent_);
  bool is_sure = spent_ && spent_->address == upstream_->address && (!spent_->was_slow || took < habits.patience_with_greeting(address));
  if (is_sure) habits.takes_greetings(address, spent_->greetings, worker_.loop.now());
  spent_.reset();
  if (upstream_->greeter == Greeter::nobody) habits.greeted_after(address, took);
  upstream_->greeter = Greeter::client;
  ++upstream_->greetings;
}

}  // namespace holdfast::proxy
