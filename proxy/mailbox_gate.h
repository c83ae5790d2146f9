// The gate: who may use the emergency mailbox now. Open while the person's route is held, and some grace
// after; or always, or never, as configured.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "proxy/control.h"
#include "proxy/settings.h"

namespace holdfast::proxy {

/// One thread at a time.
class MailboxGate {
 public:
  explicit MailboxGate(Control& control) : control_(control) {}

  /// Notes which routes are held now. To be called a few times a second.
  void look(const Settings& settings, Deadline now);
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
};

}  // namespace holdfast::proxy
