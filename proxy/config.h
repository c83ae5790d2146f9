// The configuration: what holdfast.yaml says, checked, with defaults filled in. deploy/holdfast.yaml explains each key.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "failover/breaker.h"
#include "failover/directory.h"
#include "failover/hold_queue.h"
#include "failover/route_state.h"
#include "journal/master_key.h"
#include "proxy/network.h"
#include "proxy/units.h"

namespace holdfast::proxy {

enum class Role { mx, submission, imap };
enum class ListenerTls { none, starttls, implicit };
enum class UpstreamTls { off, opportunistic, required, verify };
enum class Protocol { smtp, lmtp };
enum class Identity { none, xclient, proxy_v2, transparent };
enum class JournalOrder { before, parallel };
enum class WhenFull { refuse, bypass };
enum class UnknownRecipients { defer, accept, reject };
/// When people may use their emergency mailboxes.
enum class MailboxOpen { hold, always, never };
enum class LogFormat { text, json };
enum class LogLevel { debug, info, warning, error };

/// Who checks passwords on a submission listener: the primary, the emergency accounts, or whoever is in charge now.
enum class SubmissionAuth { automatic, primary, accounts };

struct ListenerConfig {
  HostPort address;
  Role role = Role::mx;
  ListenerTls tls = ListenerTls::none;
  std::vector<Network> proxy_protocol_from;
  SubmissionAuth auth = SubmissionAuth::automatic;
  std::string route;  ///< the route whose primary greets; the first one when empty
  bool operator==(const ListenerConfig&) const = default;
};

struct CertificateConfig {
  std::string certificate, key;  ///< PEM files; the names come from the certificate
  bool operator==(const CertificateConfig&) const = default;
};

struct TlsConfig {
  std::vector<CertificateConfig> certificates;  ///< the first is for clients that name none of them
  std::string minimum_version = "1.2";
  std::string ca_file;  ///< for verifying primaries; the system's when empty
  bool operator==(const TlsConfig&) const = default;
};

struct FailoverConfig {
  failover::Mode mode = failover::Mode::automatic;  ///< at the first start; later what an operator said last
  Duration probe_interval{std::chrono::seconds(1)};
  Duration takeover_after{std::chrono::seconds(1)};
  failover::BreakerOptions breaker;
  failover::RetryOptions retry;
  Duration max_hold{std::chrono::hours(5 * 24)};
  Duration delay_notice{0};  ///< tell senders after so long; 0: never
  std::uint64_t drain_concurrency = 20;
  std::uint64_t doubt_after = 20;      ///< held messages refused for good in a row that are believed; 0: all
  std::uint64_t max_held = 1'000'000;  ///< messages
  std::uint64_t keep_free = 0;         ///< bytes of the journal's disk that held mail must leave free
  bool operator==(const FailoverConfig&) const = default;
};

struct RouteConfig {
  std::string name;
  std::vector<std::string> domains;  ///< in lower case; "*" for all others
  std::vector<HostPort> upstreams;
  bool is_balanced = false;  ///< over all upstreams; else they are tried in order
  Identity identity = Identity::none;
  UpstreamTls tls = UpstreamTls::off;
  Protocol protocol = Protocol::smtp;
  bool is_tls_from_start = false;  ///< RFC 8314 3.3, instead of STARTTLS
  std::string tls_name;            ///< the name that the primary's certificate must have; the upstream's host when empty
  UnknownRecipients unknown_recipients = UnknownRecipients::defer;
  FailoverConfig failover;
  std::optional<MailboxOpen> mailbox_open;    ///< for its people; mailbox.open when not set
  std::string auth_user, auth_password_file;  ///< for a smart host that wants to know who we are
  bool is_egress = false;                     ///< for mail to the world: the last route, when there is one
  /// The primary knows for whom a connection is before it greets; such a connection is nobody else's.
  bool is_client_known_first() const { return identity == Identity::proxy_v2 || identity == Identity::transparent; }
  bool operator==(const RouteConfig&) const = default;
};

struct TimeoutsConfig {
  Duration connect{std::chrono::seconds(5)};
  Duration greeting{std::chrono::minutes(5)};
  Duration command{std::chrono::minutes(5)};  ///< for the client's next command
  Duration mail{std::chrono::minutes(5)};
  Duration rcpt{std::chrono::minutes(5)};
  Duration data_start{std::chrono::minutes(2)};
  Duration data_block{std::chrono::minutes(3)};
  Duration data_end{std::chrono::minutes(10)};
  bool operator==(const TimeoutsConfig&) const = default;
};

struct LimitsConfig {
  std::uint64_t connections = 10000;
  std::uint64_t per_client = 500;
  std::uint64_t message_size = 100ULL << 20;
  std::uint64_t line_length = 2048;
  std::uint64_t recipients = 1000;
  std::uint64_t commands = 10000;  ///< in one session that deliver nothing: reset by each accepted message
  std::uint64_t errors = 20;
  TimeoutsConfig timeouts;
  bool operator==(const LimitsConfig&) const = default;
};

struct ReuseConfig {
  std::uint64_t connections = 100;   ///< idle ones kept for each route and loop
  std::uint64_t transactions = 100;  ///< after so many a connection is closed
  Duration idle{std::chrono::seconds(5)};
  bool operator==(const ReuseConfig&) const = default;
};

struct JournalConfig {
  std::string path;
  JournalOrder order = JournalOrder::before;
  std::uint64_t segment_size = 1ULL << 30;
  Duration segment_age{std::chrono::hours(24)};
  journal::MasterKeySource key;  ///< the file is journal.path/master.key when not set
  WhenFull when_full = WhenFull::refuse;
  std::uint64_t max_size = 0;              ///< bytes of all segments; 0: until the disk is full
  bool compress = true;                    ///< sealed segments, in the background
  bool access_log = true;                  ///< who reads content is on record
  Duration retention{0};                   ///< segments that ended before go; 0: never
  std::vector<std::string> publish_heads;  ///< "syslog", URLs, and files to append to
  bool operator==(const JournalConfig&) const = default;
};

struct LdapConfig {
  std::string url;  ///< ldap://, ldaps:// or ldapi://; several, separated by blanks, are tried in order
  bool start_tls = true;
  std::string ca_file;  ///< for verifying the server; the system's when empty
  std::string bind_dn, password_file;
  std::string base;
  std::string filter = "(|(mail=*)(proxyAddresses=*))";
  std::vector<std::string> alias_attributes{"proxyaddresses"};  ///< in lower case
  std::uint64_t page_size = 500;
  Duration interval{std::chrono::minutes(15)};
  Duration timeout{std::chrono::seconds(30)};
  bool uses_start_tls() const { return start_tls && url.starts_with("ldap://"); }
  bool operator==(const LdapConfig&) const = default;
};

struct DirectoryConfig {
  failover::DirectoryOptions options;
  std::string file;  ///< imported at the start and at each reload
  std::optional<LdapConfig> ldap;
  bool operator==(const DirectoryConfig&) const = default;
};

struct MailboxConfig {
  MailboxOpen open = MailboxOpen::hold;
  std::map<std::string, MailboxOpen> people;  ///< by address, where it differs
  std::optional<HostPort> feed;               ///< another mail store, by LMTP
  bool returns_sent = true;                   ///< what people sent meanwhile goes to their primary mailbox too
  Duration grace{std::chrono::hours(1)};      ///< how long mailboxes stay open after the primary is back
  std::uint64_t quota = 1ULL << 30;           ///< bytes of what one person puts there
  std::uint64_t recipients_per_hour = 500;    ///< of one person's messages; 0: no limit
  bool operator==(const MailboxConfig&) const = default;
};

struct LogConfig {
  LogFormat format = LogFormat::text;
  LogLevel level = LogLevel::info;
  bool are_addresses_masked = false;  ///< people's, as log_mask.h says
  bool operator==(const LogConfig&) const = default;
};

struct Config {
  std::string hostname;
  std::vector<ListenerConfig> listeners;
  TlsConfig tls;
  std::vector<RouteConfig> routes;
  LimitsConfig limits;
  ReuseConfig reuse;
  JournalConfig journal;
  DirectoryConfig directory;
  MailboxConfig mailbox;
  std::string spf_gateway;  ///< whose Authentication-Results are believed
  std::string flag_file;    ///< while it exists all routes hold
  std::string admin_socket;
  std::optional<HostPort> admin_http;  ///< for reading only, on loopback
  LogConfig log;
  Duration shutdown_grace{std::chrono::seconds(30)};
  std::string alert_command;  ///< for /bin/sh, when somebody should know something now; empty: none
  std::uint64_t threads = 0;  ///< event loops; 0: one a core but one
};

/// Reads a configuration from YAML text. name is the file's, for messages such as
/// `holdfast.yaml:14: routes[0].upstreams[0]: "10.0.0.5" has no port; write "10.0.0.5:25"`.
Result<Config> parse_config(const std::string& yaml, const std::string& name);
Result<Config> load_config(const std::string& path);

/// The route's index by name, or nothing.
std::optional<std::size_t> find_route(const Config& config, const std::string& name);

/// Whether a route names the domain: not only by "*".
bool is_served(const Config& config, std::string_view domain);

/// The route that serves a domain, or fallback when none does.
std::size_t route_of_domain(const Config& config, std::string_view domain, std::size_t fallback);

}  // namespace holdfast::proxy
