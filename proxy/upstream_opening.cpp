// What happens on a new connection to a primary, from connecting to the point where a client's own EHLO can follow.
#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "proxy/base64.h"
#include "proxy/log.h"
#include "proxy/password_file.h"
#include "proxy/upstream.h"

namespace holdfast::proxy {
namespace {

/// So long it is not asked again whether an address is this machine's.
constexpr auto own_known_for = std::chrono::seconds(1);

/// So soon a primary that is there takes a connection.
constexpr Duration sign_of_life{250};

/// Whether it is one of this machine's addresses.
bool is_own(const SocketAddress& address) {
  FileDescriptor socket(::socket(address.storage.ss_family, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  if (!socket || ::connect(socket.get(), address.get(), address.size) != 0) return false;  // this sends nothing
  SocketAddress from;
  from.size = sizeof from.storage;
  return ::getsockname(socket.get(), from.get(), &from.size) == 0 && to_endpoint(from).address == to_endpoint(address).address;
}

bool is_silent(const std::unique_ptr<Upstream>& upstream) { return upstream && upstream->stream.is_connecting(); }

Reply out_of_reach(const Opening& opening) {
  return {421, own_reply(421, fmt::format("4.7.0 {} The mail server cannot be reached from {}, try again later or from another address",
                                          opening.settings->config.hostname, opening.client.client.address))};
}

/// What errno says of connecting, in words of who has to do something about it.
std::string why_not_connected(int reason) {
  if (reason == 0 || reason == ECONNREFUSED || reason == ECONNRESET) return "it refuses the connection";
  if (reason == EADDRNOTAVAIL)
    return "cannot connect: this machine has no port left for another connection to it; raise net.ipv4.ip_local_port_range";
  return fmt::format("cannot connect: {}", std::strerror(reason));
}

/// As XCLIENT has it.
std::string name_or_lack(const std::string& name, bool is_unsure) { return !name.empty() ? name : is_unsure ? "[TEMPUNAVAIL]" : "[UNAVAILABLE]"; }

}  // namespace

/// One address, from where the primary is to see the connection come. When it is silent to the client's address and answers Holdfast's own,
/// the primary is not out: then there is a refusal of this client.
Task<std::string> UpstreamPool::connect_for_client(const SocketAddress& address, std::size_t index, const Opening& opening, Wakeup& wakeup,
                                                   std::unique_ptr<Upstream>& upstream, std::optional<Reply>& refusal) {
  bool is_shown = opening.config().identity == Identity::transparent;
  ConnectFrom source = is_shown ? source_for(opening.client.client, address) : ConnectFrom::self;
  std::string failure = "it does not answer to connecting";
  if (source != ConnectFrom::nowhere) {
    failure = co_await connect(address, source, index, opening, wakeup, upstream);
    if (source == ConnectFrom::self || !is_silent(upstream) || opening.is_moot()) co_return failure;
  }
  bool is_there = co_await answers(address, wakeup);
  if (!is_there) co_return failure;
  Opening again = opening;
  again.by = std::max(opening.by, Clock::now() + sign_of_life);
  if (opening.may_hide_client) {
    failure = co_await connect(address, ConnectFrom::self, index, again, wakeup, upstream);
    co_return failure;
  }
  if (source == ConnectFrom::client) {  // it may have come back in between
    again.connect_patience = sign_of_life;
    failure = co_await connect(address, source, index, again, wakeup, upstream);
    if (!is_silent(upstream)) co_return failure;
  }
  log(LogLevel::warning, "upstream",
      {{"route", opening.config().name},
       {"address", to_string(to_endpoint(address))},
       {"problem", fmt::format("it answers Holdfast, but not {}, which it is to see (identity: transparent)", opening.client.client.address)},
       {"remedy", "its answers must come back by way of this machine; clients by IPv4 and by IPv6 need an upstream of each"}});
  refusal = out_of_reach(opening);
  co_return "it cannot be reached from the client's address";
}

/// Whether the primary takes a connection from an address of this machine.
Task<bool> UpstreamPool::answers(const SocketAddress& address, Wakeup& wakeup) {
  FileDescriptor socket = start_connect(address);
  if (!socket) co_return false;
  Stream stream(std::move(socket), wakeup, true);
  Deadline by = Clock::now() + sign_of_life;
  while (stream.is_connecting() && Clock::now() < by) co_await wakeup.wait(by);
  co_return !stream.is_connecting() && stream.is_alive();
}

/// As when the primary is named by the MX, which is Holdfast now. Each session would open another.
bool UpstreamPool::is_itself(const Config& config, const SocketAddress& address) {
  Endpoint at = to_endpoint(address);
  for (const ListenerConfig& listener : config.listeners) {
    const HostPort& listening = listener.address;
    bool is_everywhere = listening.host == "0.0.0.0" || listening.host == "::";
    if (listening.port != at.port) continue;
    if (listening.host == at.address) return true;
    if (!is_everywhere) continue;
    Own& own = own_[at.address];
    if (loop_.now() >= own.known_until) own = {is_own(address), loop_.now() + own_known_for};
    if (own.is_own) return true;
  }
  return false;
}

/// One address. Where TLS is only an opportunity, and fails, it is tried again without; also where it is not offered, and to learn that
/// Holdfast had to greet on a connection on which it must not.
Task<std::string> UpstreamPool::connect(const SocketAddress& address, ConnectFrom source, std::size_t index, const Opening& opening, Wakeup& wakeup,
                                        std::unique_ptr<Upstream>& upstream) {
  std::optional<SocketAddress> from;
  if (source == ConnectFrom::client) from = to_socket_address({opening.client.client.address, 0});
  if (is_itself(opening.settings->config, address)) co_return "it is Holdfast itself, which listens there: name the primary's own address";
  UpstreamTls mode = opening.config().tls;
  bool with_tls = mode != UpstreamTls::off;
  for (;;) {
    FileDescriptor socket = start_connect(address, from ? &*from : nullptr);
    if (!socket) co_return why_not_connected(errno);
    upstream = std::make_unique<Upstream>(std::move(socket), wakeup, index);
    upstream->room = occupancy_.of(opening.config().upstreams[index]);
    upstream->is_counted.emplace(upstream->room, &Occupancy::Address::attempts);
    std::string failure = co_await prepare(*upstream, opening, wakeup, with_tls);
    bool is_spent = failure.empty() && upstream->greeter != Greeter::nobody && (opening.is_ungreeted || !takes_another_greeting(*upstream));
    bool goes_plain = with_tls && mode == UpstreamTls::opportunistic && (upstream->has_tls_failed || is_spent);
    if (!goes_plain) co_return failure;
    if (is_spent)
      upstream->stream.flush("QUIT\r\n");
    else
      log(LogLevel::warning, "upstream", {{"route", opening.config().name}, {"problem", failure + "; going on in plain"}});
    with_tls = false;
  }
}

Task<std::string> UpstreamPool::prepare(Upstream& upstream, const Opening& opening, Wakeup& wakeup, bool with_tls) {
  const RouteConfig& config = opening.config();
  Deadline connect_latest = loop_.now() + std::min(opening.connect_patience, opening.timeouts().connect);
  Deadline connect_by = std::min(opening.by, connect_latest);
  while (upstream.stream.is_connecting()) {
    bool in_time = co_await wakeup.wait(connect_by);
    connect_by = due_for_greeting(opening, upstream.address, connect_latest);
    if (!in_time && Clock::now() >= connect_by) co_return "it does not answer to connecting";
  }
  if (!upstream.stream.is_alive()) co_return why_not_connected(upstream.stream.connect_problem());
  if (config.identity == Identity::proxy_v2) upstream.stream.flush(make_proxy_header(opening.client.client, opening.client.server));
  if (config.is_tls_from_start) {
    std::string failure = co_await secure(upstream, opening, connect_by);
    if (!failure.empty()) co_return failure;
    with_tls = false;
  }
  std::optional<Reply> greeting = co_await read_greeting(upstream, opening, wakeup);
  if (!greeting) co_return upstream.failure;
  upstream.greeting = std::move(*greeting);
  // It does not know the client yet: what it has had enough of is Holdfast's connections.
  bool has_enough = upstream.greeting.code == 421 && !config.is_client_known_first();
  upstream.is_full = has_enough && upstream.room->may_be_full();
  if (!upstream.greeting.is_positive()) co_return "";
  upstream.is_counted->move_to(&Occupancy::Address::connections);
  std::string failure;
  if (with_tls) failure = co_await start_tls(upstream, opening, wakeup);
  if (failure.empty() && config.identity == Identity::xclient) failure = co_await send_xclient(upstream, opening, wakeup);
  if (failure.empty() && !config.auth_user.empty()) failure = co_await authenticate(upstream, opening, wakeup);
  co_return failure;
}

Task<std::string> UpstreamPool::greet_as_self(Upstream& upstream, const Opening& opening, Wakeup& wakeup) {
  if (upstream.greeter == Greeter::holdfast) co_return "";
  bool is_lmtp = opening.config().protocol == Protocol::lmtp;
  const char* verb = is_lmtp ? "LHLO" : "EHLO";
  upstream.stream.flush(fmt::format("{} {}\r\n", verb, opening.settings->config.hostname));
  Duration patience = upstream.was_reused ? habits_.patience_with_greeting(upstream.room->name) : opening.timeouts().command;
  std::optional<Reply> reply = co_await upstream.read_reply(wakeup, due(opening, patience));
  bool knows_helo_alone = reply && !is_lmtp && reply->is_command_unknown();  // RFC 5321 3.2
  if (knows_helo_alone) {
    verb = "HELO";
    upstream.stream.flush(fmt::format("{} {}\r\n", verb, opening.settings->config.hostname));
    reply = co_await upstream.read_reply(wakeup, due(opening, patience));
  }
  if (!reply) co_return upstream.failure;
  if (!reply->is_positive()) co_return fmt::format("it refuses {}: {}", verb, reply->summary());
  upstream.greeter = Greeter::holdfast;
  ++upstream.greetings;
  upstream.own_capabilities = Capabilities::of(*reply);
  upstream.room->takes_chunks = upstream.own_capabilities->has("CHUNKING");
  upstream.ehlo = std::move(*reply);
  co_return "";
}

Task<std::string> UpstreamPool::secure(Upstream& upstream, const Opening& opening, Deadline deadline) {
  const RouteConfig& route = opening.config();
  std::string name = route.tls_name.empty() ? route.upstreams[upstream.address].host : route.tls_name;
  std::string failure = co_await upstream.stream.handshake(opening.settings->tls->new_client(route.tls, name), false, deadline);
  upstream.has_tls_failed = !failure.empty();
  upstream.greeter = Greeter::nobody;  // RFC 3207 4.2: all that was said before is forgotten
  co_return failure.empty() ? failure : "TLS failed: " + failure;
}

Task<std::string> UpstreamPool::start_tls(Upstream& upstream, const Opening& opening, Wakeup& wakeup) {
  const RouteConfig& route = opening.config();
  bool is_optional = route.tls == UpstreamTls::opportunistic;
  std::string failure = co_await greet_as_self(upstream, opening, wakeup);
  if (!failure.empty()) co_return failure;
  if (!upstream.own_capabilities->has("STARTTLS")) co_return is_optional ? "" : "it does not offer STARTTLS, which the route requires";
  Deadline deadline = due(opening, opening.timeouts().command);
  upstream.stream.flush("STARTTLS\r\n");
  std::optional<Reply> reply = co_await upstream.read_reply(wakeup, deadline);
  if (!reply) co_return upstream.failure;
  if (!reply->is_positive()) co_return is_optional ? "" : "it refuses STARTTLS: " + reply->summary();
  // Plain text behind the go-ahead was put there by someone in between (CVE-2011-0411).
  if (!upstream.stream.input().empty()) co_return "it sent plain text after its answer to STARTTLS; someone may be tampering with the connection";
  failure = co_await secure(upstream, opening, deadline);
  co_return failure;
}

/// RFC 4954: the smart host wants to know who we are. With PLAIN (RFC 4616), or LOGIN where only that is offered, as by Microsoft's.
Task<std::string> UpstreamPool::authenticate(Upstream& upstream, const Opening& opening, Wakeup& wakeup) {
  const RouteConfig& route = opening.config();
  std::string failure = co_await greet_as_self(upstream, opening, wakeup);
  if (!failure.empty()) co_return failure;
  bool takes_plain = upstream.own_capabilities->has_word("AUTH", "PLAIN"), takes_login = upstream.own_capabilities->has_word("AUTH", "LOGIN");
  if (!takes_plain && !takes_login) co_return "it offers neither AUTH PLAIN nor AUTH LOGIN, but egress.auth is set";
  Result<std::string> password = read_password_file(route.auth_password_file);
  if (!password) co_return password.error().message;
  std::vector<std::string> lines;
  if (takes_plain)
    lines = {"AUTH PLAIN " + encode_base64('\0' + route.auth_user + '\0' + *password)};
  else
    lines = {"AUTH LOGIN", encode_base64(route.auth_user), encode_base64(*password)};
  std::optional<Reply> reply;
  for (const std::string& line : lines) {
    bool is_asked = !reply || reply->code == 334;
    if (!is_asked) break;
    upstream.stream.flush(line + "\r\n");
    reply = co_await upstream.read_reply(wakeup, due(opening, opening.timeouts().command));
    if (!reply) co_return upstream.failure;
  }
  co_return reply->is_positive() ? "" : "it refuses egress.auth: " + reply->summary();
}

Task<std::string> UpstreamPool::send_xclient(Upstream& upstream, const Opening& opening, Wakeup& wakeup) {
  const ClientFacts& client = opening.client;
  std::string failure = co_await greet_as_self(upstream, opening, wakeup);
  if (!failure.empty()) co_return failure;
  if (!upstream.own_capabilities->has("XCLIENT"))
    co_return "it does not offer XCLIENT; in Postfix, add Holdfast's address to smtpd_authorized_xclient_hosts";
  auto address = [](const std::string& text) { return text.find(':') == std::string::npos ? text : "IPV6:" + text; };
  std::string command = "XCLIENT";
  auto add = [&](const std::string& attribute, const std::string& value) {
    if (upstream.own_capabilities->has_word("XCLIENT", attribute)) command += " " + attribute + "=" + value;
  };
  ClientName name = client.name.value_or(ClientName());
  add("NAME", name_or_lack(name.verified, name.is_verified_unsure));
  add("REVERSE_NAME", name_or_lack(name.reverse, name.is_reverse_unsure));
  add("ADDR", address(client.client.address));
  add("PORT", fmt::format("{}", client.client.port));
  add("DESTADDR", address(client.server.address));
  add("DESTPORT", fmt::format("{}", client.server.port));
  if (command == "XCLIENT") co_return "it offers XCLIENT without any attribute that could be sent";
  upstream.stream.flush(command + "\r\n");
  std::optional<Reply> reply = co_await upstream.read_reply(wakeup, due(opening, opening.timeouts().command));
  if (!reply) co_return upstream.failure;
  upstream.greeter = Greeter::nobody;
  // The answer is a new greeting, for this client. A refusal is the primary's word about this client, not a failure.
  upstream.greeting = std::move(*reply);
  co_return "";
}

}  // namespace holdfast::proxy
