// The gate: who may use the emergency mailbox now. Open while the person's route is held, and some grace
// after; or always, or never, as configured.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "proxy/control.h"
#include "proxy/settings.h"

namespace holdfast::proxy {

/// One thread at a time.
class MailboxGate {
 public:
  explicit MailboxGate(Control& control) : control_(control) {}

  /// Notes which routes are held now. To be called a few times a second. Returns whether somebody for whom the gate was open may find
  /// it closed since the last look.
  bool look(const std::shared_ptr<const Settings>& settings, Deadline now);
  /// address is a person's.
  bool is_open(const Settings& settings, const std::string& address, Deadline now) const;
  /// When the person's mailbox is open, as configured: for the person, the route, or all.
  MailboxOpen opens(const Settings& settings, const std::string& address) const;
  /// Routes whose people may log in now.
  std::vector<std::string> open_routes(const Settings& settings, Deadline now) const;

 private:
  bool is_open(MailboxOpen open, const std::string& route, Deadline now, Duration grace) const;

  Control& control_;
  std::map<std::string, Deadline> last_held_;  ///< by route
  std::shared_ptr<const Settings> seen_settings_;
  std::vector<std::string> seen_open_;  ///< routes whose people find it open because of a hold
};

}  // namespace holdfast::proxy
