#include "proxy/config.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <unistd.h>
#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <set>
#include <sstream>

#include "journal/catalog.h"
#include "journal/canonical_address.h"
#include "proxy/command.h"
#include "proxy/config_value.h"

namespace holdfast::proxy {
namespace {

/// Nothing that is done again after so long may be done without a pause.
constexpr Duration least_pause{10};
/// What is longer serves nobody who has to read or type it.
constexpr std::size_t longest_route_name = 100;

/// In canonical form; "*" stands for all others.
std::string read_domain(const Value& value) {
  std::string domain = journal::canonical_domain(value.non_empty());
  bool is_plain = domain.find_first_of("*@/ \t") == std::string::npos;
  if (domain != "*" && !is_plain)
    value.refuse(fmt::format("\"{}\" is no domain; write example.org, its subdomains by themselves, or * for all others", domain));
  return domain;
}

void read_durations(Section& section, Duration least, std::initializer_list<std::pair<const char*, Duration*>> slots) {
  for (auto [key, slot] : slots) section.read(key, [slot = slot, least](const Value& one) { *slot = one.duration_of_at_least(least); });
}

std::string read_hostname(const Value& value) {
  constexpr std::string_view plain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._[]:";
  std::string name = value.non_empty();
  if (name.find_first_not_of(plain) != std::string::npos) value.refuse(fmt::format("\"{}\" is no host name; write mx.example.org", name));
  return name;
}

ListenerConfig read_listener(const Value& value) {
  Section section(value);
  ListenerConfig listener;
  Value address = section.required("address");
  listener.address = address.host_port();
  if (!to_socket_address(listener.address)) address.refuse("write an IP address of this machine, or 0.0.0.0 or [::] for all");
  section.read("role", [&](const Value& v) {
    listener.role = v.one_of<Role>({{"mx", Role::mx}, {"submission", Role::submission}, {"imap", Role::imap}});
  });
  section.read("auth", [&](const Value& v) {
    listener.auth =
        v.one_of<SubmissionAuth>({{"auto", SubmissionAuth::automatic}, {"primary", SubmissionAuth::primary}, {"accounts", SubmissionAuth::accounts}});
    if (listener.role != Role::submission) v.refuse("only a listener with role: submission asks for passwords");
  });
  section.read("tls", [&](const Value& v) {
    listener.tls = v.one_of<ListenerTls>({{"none", ListenerTls::none}, {"starttls", ListenerTls::starttls}, {"implicit", ListenerTls::implicit}});
  });
  section.read("proxy_protocol_from", [&](const Value& v) {
    for (const Value& one : v.list()) {
      std::optional<Network> network = Network::parse(one.text());
      if (!network) one.refuse(fmt::format("\"{}\" is no network; write an address or CIDR such as 10.0.0.0/8", one.text()));
      listener.proxy_protocol_from.push_back(*network);
    }
  });
  section.read("route", [&](const Value& v) { listener.route = v.non_empty(); });
  section.finish();
  return listener;
}

/// "3" for so many failures in a row, or "500ms" for failing for so long.
void read_trip(const Value& value, failover::BreakerOptions& breaker) {
  if (std::optional<std::uint64_t> failures = parse_number(value.text()); failures && *failures > 0) {
    breaker.trip_failures = static_cast<unsigned>(*failures);
    breaker.trip_after = Duration::zero();
    return;
  }
  breaker.trip_after = value.duration_of_at_least(least_pause);
  breaker.trip_failures = 0;
}

/// What is set, over what holds already. A route may differ from the rest.
FailoverConfig read_failover(const Value& value, FailoverConfig failover, std::string* flag_file) {
  Section section(value);
  section.read("mode", [&](const Value& v) {
    failover.mode = v.one_of<failover::Mode>({{"auto", failover::Mode::automatic}, {"hold", failover::Mode::hold}, {"pass", failover::Mode::pass}});
  });
  read_durations(section, least_pause, {{"probe_interval", &failover.probe_interval}, {"max_hold", &failover.max_hold}});
  read_durations(section, least_pause, {{"retry_min", &failover.retry.retry_min}, {"retry_max", &failover.retry.retry_max}});
  read_durations(section, Duration(0), {{"takeover_after", &failover.takeover_after}, {"delay_notice", &failover.delay_notice}});
  read_durations(section, Duration(0), {{"release_after", &failover.breaker.release_after}});
  section.read("trip_after", [&](const Value& v) { read_trip(v, failover.breaker); });
  section.read("drain_concurrency", [&](const Value& v) { failover.drain_concurrency = v.count(1); });
  section.read("doubt_after", [&](const Value& v) { failover.doubt_after = v.count(0); });
  section.read("max_held", [&](const Value& v) { failover.max_held = v.count(1); });
  section.read("keep_free", [&](const Value& v) { failover.keep_free = v.size(); });
  if (flag_file) section.read("flag_file", [&](const Value& v) { *flag_file = v.non_empty(); });
  section.finish();
  return failover;
}

LdapConfig read_ldap(const Value& value) {
  Section section(value);
  LdapConfig ldap;
  Value url = section.required("url");
  ldap.url = url.non_empty();
  bool is_ldap = ldap.url.starts_with("ldap://") || ldap.url.starts_with("ldaps://") || ldap.url.starts_with("ldapi://");
  if (!is_ldap) url.refuse(fmt::format("\"{}\" is no LDAP URL; write ldap://dc.example.org or ldaps://dc.example.org", ldap.url));
  section.read("start_tls", [&](const Value& v) { ldap.start_tls = v.yes_or_no(); });
  ldap.base = section.required("base").text();
  for (auto [key, slot] : std::initializer_list<std::pair<const char*, std::string*>>{
           {"ca_file", &ldap.ca_file}, {"bind_dn", &ldap.bind_dn}, {"password_file", &ldap.password_file}, {"filter", &ldap.filter}})
    section.read(key, [slot = slot](const Value& one) { *slot = one.non_empty(); });
  section.read("alias_attributes", [&](const Value& v) {
    ldap.alias_attributes.clear();
    for (const Value& one : v.list()) ldap.alias_attributes.push_back(journal::normalise(one.non_empty()));
  });
  section.read("page_size", [&](const Value& v) {
    ldap.page_size = v.count(1);
    if (ldap.page_size > 100'000) v.refuse("must be at most 100000");
  });
  read_durations(section, std::chrono::seconds(1), {{"interval", &ldap.interval}, {"timeout", &ldap.timeout}});
  section.finish();
  return ldap;
}

DirectoryConfig read_directory(const Value& value) {
  Section section(value);
  DirectoryConfig directory;
  auto us = [](Duration duration) { return std::chrono::duration_cast<std::chrono::microseconds>(duration).count(); };
  section.read("file", [&](const Value& v) { directory.file = v.non_empty(); });
  section.read("catch_all", [&](const Value& v) {
    for (const Value& one : v.list()) directory.options.catch_all.insert(journal::canonical_domain(one.non_empty()));
  });
  section.read("sub_address_separator", [&](const Value& v) { directory.options.sub_address_separator = v.text(); });
  section.read("domain_aliases", [&](const Value& v) {
    if (!v.node().IsMap()) v.refuse("write alias: domain pairs here");
    for (const auto& item : v.node())
      directory.options.domain_aliases[journal::canonical_domain(item.first.Scalar())] = journal::canonical_domain(item.second.Scalar());
  });
  section.read("positive_ttl", [&](const Value& v) { directory.options.positive_us = us(v.duration()); });
  section.read("max_learned", [&](const Value& v) { directory.options.most_learned = v.count(1); });
  section.read("ldap", [&](const Value& v) { directory.ldap = read_ldap(v); });
  section.read("negative_ttl", [&](const Value& v) { directory.options.negative_us = us(v.duration()); });
  section.finish();
  return directory;
}

UpstreamTls read_upstream_tls(const Value& value) {
  return value.one_of<UpstreamTls>({{"off", UpstreamTls::off},
                                    {"opportunistic", UpstreamTls::opportunistic},
                                    {"required", UpstreamTls::required},
                                    {"verify", UpstreamTls::verify}});
}

bool is_tls_certain(UpstreamTls tls) { return tls == UpstreamTls::required || tls == UpstreamTls::verify; }

/// The way out for notifications, and later for people's own mail: a route that serves no domain.
RouteConfig read_egress(const Value& value, const FailoverConfig& failover, std::string& spf_gateway) {
  Section section(value);
  RouteConfig route;
  route.name = "egress";
  route.is_egress = true;
  route.failover = failover;
  route.failover.mode = failover::Mode::automatic;
  Value upstreams = section.required("upstreams");
  for (const Value& upstream : upstreams.list()) route.upstreams.push_back(upstream.host_port());
  if (route.upstreams.empty()) upstreams.refuse("name at least one mail server that takes mail for the world");
  section.read("tls", [&](const Value& v) { route.tls = read_upstream_tls(v); });
  section.read("tls_name", [&](const Value& v) { route.tls_name = v.non_empty(); });
  section.read("auth", [&](const Value& v) {
    Section auth(v);
    route.auth_user = auth.required("user").non_empty();
    route.auth_password_file = auth.required("password_file").non_empty();
    auth.finish();
    if (!is_tls_certain(route.tls)) v.refuse("passwords go over TLS only: set egress.tls to required or verify");
  });
  section.read("implicit_tls", [&](const Value& v) {
    route.is_tls_from_start = v.one_of<bool>({{"true", true}, {"false", false}});
    if (route.is_tls_from_start && !is_tls_certain(route.tls))
      v.refuse("there is no going back from TLS at the first byte: set egress.tls to required or verify");
  });
  section.read("spf_gateway", [&](const Value& v) { spf_gateway = v.non_empty(); });
  section.finish();
  return route;
}

MailboxOpen read_open(const Value& value) {
  return value.one_of<MailboxOpen>({{"hold", MailboxOpen::hold}, {"always", MailboxOpen::always}, {"never", MailboxOpen::never}});
}

MailboxConfig read_mailbox(const Value& value) {
  Section section(value);
  MailboxConfig mailbox;
  section.read("open", [&](const Value& v) { mailbox.open = read_open(v); });
  section.read("return_sent", [&](const Value& v) { mailbox.returns_sent = v.one_of<bool>({{"smtp", true}, {"off", false}}); });
  section.read("feed", [&](const Value& v) {
    constexpr std::string_view scheme = "lmtp://";
    std::string text = v.non_empty();
    std::optional<HostPort> host = text.starts_with(scheme) ? parse_host_port(text.substr(scheme.size())) : std::nullopt;
    if (!host || host->port == 0) v.refuse(fmt::format("\"{}\" is no mail store; write lmtp://127.0.0.1:24", text));
    mailbox.feed = host;
  });
  section.read("grace", [&](const Value& v) { mailbox.grace = v.duration(); });
  section.read("quota", [&](const Value& v) { mailbox.quota = v.size(); });
  section.read("recipients_per_hour", [&](const Value& v) { mailbox.recipients_per_hour = v.count(0); });
  section.read("people", [&](const Value& v) {
    if (!v.node().IsMap()) v.refuse("write addresses and hold, always or never here");
    for (const auto& item : v.node())
      mailbox.people[journal::canonical_address(item.first.Scalar())] = read_open(Value(item.second, v.file(), v.path() + "." + item.first.Scalar()));
  });
  section.finish();
  return mailbox;
}

RouteConfig read_route(const Value& value, const FailoverConfig& failover) {
  Section section(value);
  RouteConfig route;
  route.failover = failover;
  Value name = section.required("name");
  route.name = name.non_empty();
  if (route.name.size() > longest_route_name) name.refuse(fmt::format("must have at most {} characters", longest_route_name));
  for (const Value& domain : section.required("domains").list()) route.domains.push_back(read_domain(domain));
  Value upstreams = section.required("upstreams");
  for (const Value& upstream : upstreams.list()) route.upstreams.push_back(upstream.host_port());
  if (route.upstreams.empty()) upstreams.refuse("name at least one address of the primary");
  section.read("balance", [&](const Value& v) { route.is_balanced = v.yes_or_no(); });
  section.read("identity", [&](const Value& v) {
    route.identity = v.one_of<Identity>(
        {{"none", Identity::none}, {"xclient", Identity::xclient}, {"proxy-v2", Identity::proxy_v2}, {"transparent", Identity::transparent}});
  });
  section.read("tls", [&](const Value& v) { route.tls = read_upstream_tls(v); });
  section.read("tls_name", [&](const Value& v) { route.tls_name = v.non_empty(); });
  section.read("unknown_recipients", [&](const Value& v) {
    route.unknown_recipients = v.one_of<UnknownRecipients>(
        {{"defer", UnknownRecipients::defer}, {"accept", UnknownRecipients::accept}, {"reject", UnknownRecipients::reject}});
  });
  section.read("mailbox_open", [&](const Value& v) { route.mailbox_open = read_open(v); });
  section.read("failover", [&](const Value& v) { route.failover = read_failover(v, route.failover, nullptr); });
  section.finish();
  return route;
}

TlsConfig read_tls(const Value& value) {
  Section section(value);
  TlsConfig tls;
  section.read("certificates", [&](const Value& list) {
    for (const Value& one : list.list()) {
      Section certificate(one);
      tls.certificates.push_back({certificate.required("certificate").non_empty(), certificate.required("key").non_empty()});
      certificate.finish();
    }
  });
  section.read("minimum_version", [&](const Value& v) { tls.minimum_version = v.one_of<std::string>({{"1.2", "1.2"}, {"1.3", "1.3"}}); });
  section.read("ca_file", [&](const Value& v) { tls.ca_file = v.non_empty(); });
  section.finish();
  return tls;
}

LimitsConfig read_limits(const Value& value) {
  Section section(value);
  LimitsConfig limits;
  section.read("connections", [&](const Value& v) { limits.connections = v.count(1); });
  section.read("per_client", [&](const Value& v) { limits.per_client = v.count(1); });
  section.read("message_size", [&](const Value& v) { limits.message_size = v.size(); });
  section.read("line_length", [&](const Value& v) {
    limits.line_length = v.size();
    if (limits.line_length < 512) v.refuse("must be at least 512B (RFC 5321 4.5.3.1.4)");
    if (limits.line_length > 65536) v.refuse("must be at most 64KiB");
  });
  section.read("recipients", [&](const Value& v) { limits.recipients = v.count(1); });
  section.read("commands", [&](const Value& v) { limits.commands = v.count(1); });
  section.read("errors", [&](const Value& v) { limits.errors = v.count(1); });
  section.read("timeouts", [&](const Value& v) {
    Section timeouts(v);
    TimeoutsConfig& t = limits.timeouts;
    read_durations(timeouts, least_pause, {{"connect", &t.connect}, {"greeting", &t.greeting}, {"command", &t.command}});
    read_durations(timeouts, least_pause, {{"mail", &t.mail}, {"rcpt", &t.rcpt}});
    read_durations(timeouts, least_pause, {{"data_start", &t.data_start}, {"data_block", &t.data_block}, {"data_end", &t.data_end}});
    timeouts.finish();
  });
  section.finish();
  return limits;
}

ReuseConfig read_reuse(const Value& value) {
  Section section(value);
  ReuseConfig reuse;
  section.read("connections", [&](const Value& v) { reuse.connections = v.count(0); });
  section.read("transactions", [&](const Value& v) { reuse.transactions = v.count(1); });
  section.read("idle", [&](const Value& v) { reuse.idle = v.duration(); });
  section.finish();
  return reuse;
}

JournalConfig read_journal(const Value& value) {
  Section section(value);
  JournalConfig journal;
  journal.path = section.required("path").non_empty();
  journal.key.file = journal.path + "/master.key";
  section.read("order", [&](const Value& v) {
    journal.order = v.one_of<JournalOrder>({{"before", JournalOrder::before}, {"parallel", JournalOrder::parallel}});
  });
  section.read("segment_size", [&](const Value& v) {
    journal.segment_size = v.size();
    if (journal.segment_size < (1ULL << 20)) v.refuse("must be at least 1MiB");
  });
  section.read("segment_age", [&](const Value& v) { journal.segment_age = v.duration(); });
  section.read("compress", [&](const Value& v) { journal.compress = v.yes_or_no(); });
  section.read("access_log", [&](const Value& v) { journal.access_log = v.yes_or_no(); });
  section.read("retention", [&](const Value& v) { journal.retention = v.duration(); });
  section.read("max_size", [&](const Value& v) { journal.max_size = v.size(); });
  section.read("publish_heads", [&](const Value& v) {
    for (const Value& one : v.list()) journal.publish_heads.push_back(one.non_empty());
  });
  section.read("key_file", [&](const Value& v) { journal.key.file = v.non_empty(); });
  section.read("key_command", [&](const Value& v) {
    journal.key.command = v.non_empty();
    if (section.at("key_file").is_set()) v.refuse("the master key comes from key_file or from key_command, not from both");
  });
  section.read("when_full", [&](const Value& v) {
    journal.when_full = v.one_of<WhenFull>({{"refuse", WhenFull::refuse}, {"bypass", WhenFull::bypass}});
  });
  section.finish();
  return journal;
}

std::string own_hostname() {
  char name[256] = "";
  if (::gethostname(name, sizeof name - 1) != 0 || name[0] == '\0') return "localhost";
  return name;
}

void read_admin(const Value& value, Config& config) {
  Section section(value);
  section.read("socket", [&](const Value& v) {
    config.admin_socket = v.non_empty();
    if (config.admin_socket.size() > 100) v.refuse("the path is too long for a socket; at most 100 characters");
  });
  section.read("http", [&](const Value& v) {
    config.admin_http = v.host_port();
    if (!is_loopback(config.admin_http->host)) v.refuse("there are no passwords there: write an address of loopback, such as 127.0.0.1:8025");
  });
  section.finish();
}

void read_log(const Value& value, Config& config) {
  Section section(value);
  section.read("format", [&](const Value& v) { config.log.format = v.one_of<LogFormat>({{"text", LogFormat::text}, {"json", LogFormat::json}}); });
  section.read("level", [&](const Value& v) {
    config.log.level =
        v.one_of<LogLevel>({{"debug", LogLevel::debug}, {"info", LogLevel::info}, {"warning", LogLevel::warning}, {"error", LogLevel::error}});
  });
  section.read("addresses", [&](const Value& v) { config.log.are_addresses_masked = v.one_of<bool>({{"full", false}, {"masked", true}}); });
  section.finish();
}

// What no single key can tell.
void check_listeners(const Value& listeners, const Config& config) {
  for (std::size_t i = 0; i < config.listeners.size(); ++i) {
    Value value = listeners.list()[i];
    const ListenerConfig& listener = config.listeners[i];
    if (listener.tls != ListenerTls::none && config.tls.certificates.empty())
      value.refuse("this listener speaks TLS, but tls.certificates names no certificate");
    if (!listener.route.empty() && !find_route(config, listener.route)) value.refuse(fmt::format("there is no route named \"{}\"", listener.route));
    for (std::size_t k = 0; k < i; ++k)
      if (config.listeners[k].address == listener.address) value.refuse("another listener has the same address");
  }
}

void check_routes(const Value& routes, const Config& config) {
  std::set<std::string> names{"egress"}, domains;
  for (std::size_t i = 0; i < config.routes.size(); ++i) {
    Value value = routes.list()[i];
    if (!names.insert(config.routes[i].name).second) value.refuse(fmt::format("another route is named \"{}\" too", config.routes[i].name));
    for (const HostPort& upstream : config.routes[i].upstreams)
      for (const ListenerConfig& listener : config.listeners)
        if (upstream == listener.address)
          value.refuse(fmt::format("the upstream {} is a listener of Holdfast's own; name the primary", to_string(upstream)));
    for (const std::string& domain : config.routes[i].domains)
      if (!domains.insert(domain).second) value.refuse(fmt::format("the domain \"{}\" belongs to another route already", domain));
  }
}

Config read_config(const Value& root) {
  Section section(root);
  Config config;
  config.hostname = own_hostname();
  section.read("hostname", [&](const Value& v) { config.hostname = read_hostname(v); });
  Value listeners = section.required("listeners");
  for (const Value& one : listeners.list()) config.listeners.push_back(read_listener(one));
  if (config.listeners.empty()) listeners.refuse("name at least one address to listen on");
  section.read("tls", [&](const Value& v) { config.tls = read_tls(v); });
  FailoverConfig failover;
  section.read("failover", [&](const Value& v) { failover = read_failover(v, failover, &config.flag_file); });
  Value routes = section.required("routes");
  for (const Value& one : routes.list()) config.routes.push_back(read_route(one, failover));
  if (config.routes.empty()) routes.refuse("name at least one primary");
  section.read("directory", [&](const Value& v) { config.directory = read_directory(v); });
  section.read("mailbox", [&](const Value& v) { config.mailbox = read_mailbox(v); });
  section.read("limits", [&](const Value& v) { config.limits = read_limits(v); });
  section.read("reuse", [&](const Value& v) { config.reuse = read_reuse(v); });
  config.journal = read_journal(section.required("journal"));
  section.read("admin", [&](const Value& v) { read_admin(v, config); });
  section.read("log", [&](const Value& v) { read_log(v, config); });
  section.read("alert_command", [&](const Value& v) { config.alert_command = v.non_empty(); });
  section.read("shutdown_grace", [&](const Value& v) { config.shutdown_grace = v.duration(); });
  section.read("threads", [&](const Value& v) { config.threads = v.count(1); });
  check_listeners(listeners, config);
  check_routes(routes, config);
  section.read("egress", [&](const Value& v) { config.routes.push_back(read_egress(v, failover, config.spf_gateway)); });
  section.finish();
  return config;
}

}  // namespace

Result<Config> parse_config(const std::string& yaml, const std::string& name) {
  try {
    YAML::Node root = YAML::Load(yaml);
    if (!root.IsMap())
      return Error{ErrorCode::invalid, fmt::format("{}: there is no configuration in it; see deploy/holdfast.yaml for an example", name)};
    return read_config(Value(root, name, ""));
  } catch (const Refused& refused) {
    return Error{ErrorCode::invalid, refused.message};
  } catch (const YAML::Exception& problem) {
    return Error{ErrorCode::invalid, fmt::format("{}:{}: not valid YAML: {}", name, problem.mark.line + 1, problem.msg)};
  }
}

Result<Config> load_config(const std::string& path) {
  std::error_code ignored;
  if (std::filesystem::is_directory(path, ignored)) return Error{ErrorCode::invalid, path + ": is a folder, not a configuration file"};
  std::ifstream file(path);
  if (!file) return Error{ErrorCode::invalid, fmt::format("{}: cannot be read; name the configuration file with -c FILE", path)};
  std::ostringstream text;
  text << file.rdbuf();
  return parse_config(text.str(), path);
}

std::optional<std::size_t> find_route(const Config& config, const std::string& name) {
  for (std::size_t i = 0; i < config.routes.size(); ++i)
    if (config.routes[i].name == name) return i;
  return std::nullopt;
}

std::size_t route_of_domain(const Config& config, std::string_view domain, std::size_t fallback) {
  std::string wanted = journal::canonical_domain(domain);
  std::size_t any = fallback;
  for (std::size_t i = 0; i < config.routes.size(); ++i)
    for (const std::string& one : config.routes[i].domains) {
      if (one == wanted) return i;
      if (one == "*") any = i;
    }
  return any;
}

bool is_served(const Config& config, std::string_view domain) {
  std::string wanted = journal::canonical_domain(domain);
  return std::any_of(config.routes.begin(), config.routes.end(),
                     [&](const RouteConfig& route) { return std::find(route.domains.begin(), route.domains.end(), wanted) != route.domains.end(); });
}

}  // namespace holdfast::proxy
