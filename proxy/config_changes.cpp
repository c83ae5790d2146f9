#include "proxy/config_changes.h"

namespace holdfast::proxy {

std::vector<std::string> changes(const Config& before, const Config& after) {
  std::vector<std::string> list;
  auto note = [&list](bool is_same, const char* what) {
    if (!is_same) list.emplace_back(what);
  };
  note(before.hostname == after.hostname, "hostname changed");
  note(before.tls == after.tls, "tls changed");
  note(before.routes == after.routes, "routes changed");
  note(before.limits == after.limits, "limits changed");
  note(before.directory == after.directory, "directory changed");
  note(before.flag_file == after.flag_file, "failover.flag_file changed");
  note(before.spf_gateway == after.spf_gateway, "egress.spf_gateway changed");
  note(before.reuse == after.reuse, "reuse changed");
  note(before.log == after.log, "log changed");
  note(before.shutdown_grace == after.shutdown_grace, "shutdown_grace changed");
  note(before.alert_command == after.alert_command, "alert_command changed");
  note(before.mailbox == after.mailbox, "mailbox changed; a feed takes effect after a restart");
  note(before.journal.order == after.journal.order, "journal.order changed");
  note(before.journal.access_log == after.journal.access_log, "journal.access_log changed");
  note(before.journal.retention == after.journal.retention, "journal.retention changed");
  note(before.journal.max_size == after.journal.max_size, "journal.max_size changed");
  note(before.journal.when_full == after.journal.when_full, "journal.when_full changed");
  note(before.listeners == after.listeners, "listeners changed");
  note(before.journal.path == after.journal.path && before.journal.key == after.journal.key &&
           before.journal.segment_size == after.journal.segment_size && before.journal.segment_age == after.journal.segment_age &&
           before.journal.compress == after.journal.compress && before.journal.publish_heads == after.journal.publish_heads,
       "journal.path, key_file, key_command, segment_size, segment_age, compress or publish_heads changed: takes effect after a restart");
  note(before.admin_socket == after.admin_socket && before.admin_http == after.admin_http,
       "admin.socket or http changed: takes effect after a restart");
  note(before.threads == after.threads, "threads changed: takes effect after a restart");
  return list;
}

}  // namespace holdfast::proxy
