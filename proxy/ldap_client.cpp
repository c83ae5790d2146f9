#include "proxy/ldap_client.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>

#include "journal/catalog.h"
#include "proxy/command.h"
#include "proxy/loop.h"
#include "proxy/network.h"
#include "proxy/password_file.h"

namespace holdfast::proxy {
namespace {

using failover::LdapEntry;

timeval to_timeval(Duration duration) {
  auto us = std::chrono::duration_cast<std::chrono::microseconds>(duration).count();
  return {static_cast<time_t>(us / 1000000), static_cast<suseconds_t>(us % 1000000)};
}

/// One spelling for each DN (RFC 4514), without regard to case.
std::string normalise_dn(const char* dn) {
  LDAPDN parsed = nullptr;
  std::string normal = dn;
  if (ldap_str2dn(dn, &parsed, LDAP_DN_FORMAT_LDAPV3) == LDAP_SUCCESS) {
    char* text = nullptr;
    if (ldap_dn2str(parsed, &text, LDAP_DN_FORMAT_LDAPV3) == LDAP_SUCCESS) normal = text;
    ldap_memfree(text);
    ldap_dnfree(parsed);
  }
  return journal::normalise(normal);
}

}  // namespace

Error LdapClient::problem(int code, const std::string& what) const {
  std::string text = ldap_err2string(code);
  char* diagnostic = nullptr;
  if (ldap_ && ldap_get_option(ldap_.get(), LDAP_OPT_DIAGNOSTIC_MESSAGE, &diagnostic) == LDAP_OPT_SUCCESS && diagnostic && *diagnostic)
    text += fmt::format(" ({})", diagnostic);
  ldap_memfree(diagnostic);
  return {ErrorCode::unavailable, fmt::format("{}: {}: {}", config_.url, what, text)};
}

Result<std::unique_ptr<LdapClient>> LdapClient::connect(const LdapConfig& config, const std::atomic<bool>& should_stop) {
  if (Status loaded = libldap.load(); !loaded) return Error{ErrorCode::unavailable, config.url + ": " + loaded.error().message};
  std::unique_ptr<LdapClient> client(new LdapClient(config, should_stop));
  if (Status opened = client->open(); !opened) return opened.error();
  if (Status secured = client->secure(); !secured) return secured.error();
  if (Status bound = client->bind(); !bound) return bound.error();
  return client;
}

Status LdapClient::open() {
  LDAP* ldap = nullptr;
  if (int code = ldap_initialize(&ldap, config_.url.c_str()); code != LDAP_SUCCESS) return problem(code, "directory.ldap.url cannot be used");
  ldap_.reset(ldap);
  int version = LDAP_VERSION3;
  timeval timeout = to_timeval(config_.timeout);
  ldap_set_option(ldap, LDAP_OPT_PROTOCOL_VERSION, &version);
  ldap_set_option(ldap, LDAP_OPT_REFERRALS, LDAP_OPT_OFF);
  ldap_set_option(ldap, LDAP_OPT_NETWORK_TIMEOUT, &timeout);
  ldap_set_option(ldap, LDAP_OPT_TIMEOUT, &timeout);
  if (!config_.ca_file.empty() && ldap_set_option(ldap, LDAP_OPT_X_TLS_CACERTFILE, config_.ca_file.c_str()) != LDAP_OPT_SUCCESS)
    return Error{ErrorCode::invalid, fmt::format("directory.ldap.ca_file: {} cannot be used", config_.ca_file)};
  int demand = LDAP_OPT_X_TLS_DEMAND, as_client = 0;
  ldap_set_option(ldap, LDAP_OPT_X_TLS_REQUIRE_CERT, &demand);
  ldap_set_option(ldap, LDAP_OPT_X_TLS_NEWCTX, &as_client);
  return {};
}

Status LdapClient::secure() {
  if (!config_.uses_start_tls()) return {};
  if (int code = ldap_start_tls_s(ldap_.get(), nullptr, nullptr); code != LDAP_SUCCESS)
    return problem(code,
                   "cannot connect with StartTLS; check directory.ldap.url, whether the server's certificate "
                   "names that host, and ca_file");
  return {};
}

Status LdapClient::bind() {
  Result<std::string> password = std::string();
  if (!config_.password_file.empty()) password = read_password_file(config_.password_file);
  if (!password) return Error{password.error().code, "directory.ldap.password_file: " + password.error().message};
  berval secret{password->size(), password->data()};
  int code = ldap_sasl_bind_s(ldap_.get(), config_.bind_dn.c_str(), LDAP_SASL_SIMPLE, &secret, nullptr, nullptr, nullptr);
  if (code == LDAP_INVALID_CREDENTIALS) return problem(code, "the bind was refused; check directory.ldap.bind_dn and password_file");
  if (code != LDAP_SUCCESS) return problem(code, "cannot connect and bind");
  return {};
}

/// The whole answer to a request, waited for in slices so that stopping is not held up.
Result<LdapClient::Message> LdapClient::await(int id) {
  Deadline deadline = Clock::now() + config_.timeout;
  for (;;) {
    timeval slice{0, 200000};
    LDAPMessage* answer = nullptr;
    int kind = ldap_result(ldap_.get(), id, LDAP_MSG_ALL, &slice, &answer);
    Message message(answer);
    if (kind > 0) return message;
    bool is_late = Clock::now() >= deadline || should_stop_;
    if (kind == 0 && !is_late) continue;
    int code = LDAP_TIMEOUT;
    if (kind < 0) ldap_get_option(ldap_.get(), LDAP_OPT_RESULT_CODE, &code);
    ldap_abandon_ext(ldap_.get(), id, nullptr, nullptr);
    return problem(code, "no answer to the search");
  }
}

/// One page of results. Returns the cookie for the next one; empty after the last.
Result<std::string> LdapClient::search_page(const std::string& base, int scope, const std::string& filter, const std::vector<std::string>& attributes,
                                            const std::string& cookie, std::vector<LdapEntry>& into) {
  std::vector<char*> names;
  for (const std::string& attribute : attributes) names.push_back(const_cast<char*>(attribute.c_str()));
  char no_attributes[] = LDAP_NO_ATTRS;
  if (names.empty()) names.push_back(no_attributes);
  names.push_back(nullptr);

  berval before{cookie.size(), const_cast<char*>(cookie.data())};
  LDAPControl* page = nullptr;
  if (int code = ldap_create_page_control(ldap_.get(), static_cast<ber_int_t>(config_.page_size), &before, 0, &page); code != LDAP_SUCCESS)
    return problem(code, "cannot ask for pages");
  std::unique_ptr<LDAPControl, FreedBy<ldap_control_free>> owned(page);
  LDAPControl* controls[] = {page, nullptr};
  int id = 0;
  if (int code = ldap_search_ext(ldap_.get(), base.c_str(), scope, filter.c_str(), names.data(), 0, controls, nullptr, nullptr, LDAP_NO_LIMIT, &id);
      code != LDAP_SUCCESS)
    return problem(code, "cannot search; check directory.ldap.base and filter");
  Result<Message> answer = await(id);
  if (!answer) return answer.error();
  LDAPMessage* all = answer->get();
  int code = LDAP_SUCCESS;
  LDAPControl** returned = nullptr;
  for (LDAPMessage* one = ldap_first_message(ldap_.get(), all); one; one = ldap_next_message(ldap_.get(), one))
    if (ldap_msgtype(one) == LDAP_RES_SEARCH_RESULT) ldap_parse_result(ldap_.get(), one, &code, nullptr, nullptr, nullptr, &returned, 0);
  std::unique_ptr<LDAPControl*, FreedBy<ldap_controls_free>> freed(returned);
  if (code != LDAP_SUCCESS) return problem(code, "the search was refused; check directory.ldap.base and filter");
  for (LDAPMessage* one = ldap_first_entry(ldap_.get(), all); one; one = ldap_next_entry(ldap_.get(), one)) {
    std::string rest_of_members;
    LdapEntry entry = read_entry(one, rest_of_members);
    if (!rest_of_members.empty())
      if (Status read = read_rest_of_members(entry, rest_of_members); !read) return read.error();
    into.push_back(std::move(entry));
  }
  LDAPControl* paged = returned ? ldap_control_find(LDAP_CONTROL_PAGEDRESULTS, returned, nullptr) : nullptr;
  if (!paged) return std::string();
  ber_int_t estimate = 0;
  berval next{0, nullptr};
  if (ldap_parse_pageresponse_control(ldap_.get(), paged, &estimate, &next) != LDAP_SUCCESS) return std::string();
  std::string text(next.bv_val ? next.bv_val : "", next.bv_len);
  ldap_memfree(next.bv_val);
  return text;
}

/// Active Directory gives long lists in ranges: "member;range=0-1499". rest_of_members is then what to ask
/// for next.
LdapEntry LdapClient::read_entry(LDAPMessage* message, std::string& rest_of_members) {
  LdapEntry entry;
  char* dn = ldap_get_dn(ldap_.get(), message);
  entry.dn = normalise_dn(dn ? dn : "");
  ldap_memfree(dn);
  BerElement* position = nullptr;
  for (char* name = ldap_first_attribute(ldap_.get(), message, &position); name; name = ldap_next_attribute(ldap_.get(), message, position)) {
    std::string attribute = journal::normalise(name);
    std::size_t range = attribute.find(";range=");
    if (range != std::string::npos && attribute.back() != '*') {
      auto last = parse_number(attribute.substr(attribute.rfind('-') + 1));
      if (last) rest_of_members = fmt::format("{};range={}-*", attribute.substr(0, range), *last + 1);
    }
    attribute = attribute.substr(0, attribute.find(';'));
    bool is_dn = attribute == "member" || attribute == "uniquemember";
    berval** values = ldap_get_values_len(ldap_.get(), message, name);
    for (int i = 0; values && values[i]; ++i) {
      std::string value(values[i]->bv_val, values[i]->bv_len);
      entry.values[attribute].push_back(is_dn ? normalise_dn(value.c_str()) : value);
    }
    ldap_value_free_len(values);
    ldap_memfree(name);
  }
  ber_free(position, 0);
  return entry;
}

/// What is found there may have a rest of its own, which is read on the way.
Status LdapClient::read_rest_of_members(LdapEntry& entry, const std::string& attribute) {
  std::vector<LdapEntry> found;
  auto read = search_page(entry.dn, LDAP_SCOPE_BASE, "(objectClass=*)", {attribute}, "", found);
  if (!read) return read.error();
  std::string name = attribute.substr(0, attribute.find(';'));
  std::vector<std::string>& members = entry.values[name];
  for (const LdapEntry& rest : found) members.insert(members.end(), rest.all(name).begin(), rest.all(name).end());
  return {};
}

Result<std::vector<LdapEntry>> LdapClient::search(const std::string& filter, const std::vector<std::string>& attributes) {
  std::vector<LdapEntry> entries;
  std::string cookie;
  do {
    auto next = search_page(config_.base, LDAP_SCOPE_SUBTREE, filter, attributes, cookie, entries);
    if (!next) return next.error();
    cookie = *next;
  } while (!cookie.empty());
  return entries;
}

std::string LdapClient::server() const {
  int socket = -1;
  SocketAddress peer;
  peer.size = sizeof peer.storage;
  if (ldap_get_option(ldap_.get(), LDAP_OPT_DESC, &socket) != LDAP_OPT_SUCCESS || ::getpeername(socket, peer.get(), &peer.size) != 0) return {};
  if (peer.storage.ss_family == AF_UNIX) return {};
  Endpoint server = to_endpoint(peer);
  return to_string(HostPort{server.address, server.port});
}

}  // namespace holdfast::proxy
