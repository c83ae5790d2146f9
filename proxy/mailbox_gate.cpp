#include "proxy/mailbox_gate.h"

#include <algorithm>

#include "journal/canonical_address.h"
#include "proxy/address.h"

namespace holdfast::proxy {
namespace {

const RouteConfig& route_of(const Settings& settings, const std::string& address) {
  return settings.config.routes[route_of_domain(settings.config, domain_of(address), 0)];
}

}  // namespace

bool MailboxGate::look(const std::shared_ptr<const Settings>& settings, Deadline now) {
  std::vector<std::string> open;
  for (const RouteConfig& route : settings->config.routes) {
    if (route.is_egress) continue;
    if (control_.board(route.name).is_held()) last_held_[route.name] = now;
    if (is_open(MailboxOpen::hold, route.name, now, settings->config.mailbox.grace)) open.push_back(route.name);
  }
  bool is_as_it_was = open == seen_open_ && settings == seen_settings_;
  seen_open_ = std::move(open);
  seen_settings_ = settings;
  return !is_as_it_was;
}

bool MailboxGate::is_open(const Settings& settings, const std::string& address, Deadline now) const {
  return is_open(opens(settings, address), route_of(settings, address).name, now, settings.config.mailbox.grace);
}

MailboxOpen MailboxGate::opens(const Settings& settings, const std::string& address) const {
  const MailboxConfig& mailbox = settings.config.mailbox;
  if (auto own = mailbox.people.find(journal::canonical_address(address)); own != mailbox.people.end()) return own->second;
  return route_of(settings, address).mailbox_open.value_or(mailbox.open);
}

bool MailboxGate::is_open(MailboxOpen open, const std::string& route, Deadline now, Duration grace) const {
  if (open != MailboxOpen::hold) return open == MailboxOpen::always;
  if (control_.board(route).is_held()) return true;
  auto held = last_held_.find(route);
  return held != last_held_.end() && now - held->second < grace;
}

std::vector<std::string> MailboxGate::open_routes(const Settings& settings, Deadline now) const {
  std::vector<std::string> open;
  const MailboxConfig& mailbox = settings.config.mailbox;
  for (const RouteConfig& route : settings.config.routes)
    if (!route.is_egress && is_open(route.mailbox_open.value_or(mailbox.open), route.name, now, mailbox.grace)) open.push_back(route.name);
  return open;
}

}  // namespace holdfast::proxy
