// libldap, loaded when it is first needed (late_library.h): what of it is used.
#pragma once

#include <ldap.h>

#include "proxy/late_library.h"

namespace holdfast::proxy {

inline constinit LateLibrary libldap(HOLDFAST_LIBLDAP);
HOLDFAST_LATE(libldap, ber_free);
HOLDFAST_LATE(libldap, ldap_abandon_ext);
HOLDFAST_LATE(libldap, ldap_control_find);
HOLDFAST_LATE(libldap, ldap_control_free);
HOLDFAST_LATE(libldap, ldap_controls_free);
HOLDFAST_LATE(libldap, ldap_create_page_control);
HOLDFAST_LATE(libldap, ldap_dn2str);
HOLDFAST_LATE(libldap, ldap_dnfree);
HOLDFAST_LATE(libldap, ldap_err2string);
HOLDFAST_LATE(libldap, ldap_first_attribute);
HOLDFAST_LATE(libldap, ldap_first_entry);
HOLDFAST_LATE(libldap, ldap_first_message);
HOLDFAST_LATE(libldap, ldap_get_dn);
HOLDFAST_LATE(libldap, ldap_get_option);
HOLDFAST_LATE(libldap, ldap_get_values_len);
HOLDFAST_LATE(libldap, ldap_initialize);
HOLDFAST_LATE(libldap, ldap_memfree);
HOLDFAST_LATE(libldap, ldap_msgfree);
HOLDFAST_LATE(libldap, ldap_msgtype);
HOLDFAST_LATE(libldap, ldap_next_attribute);
HOLDFAST_LATE(libldap, ldap_next_entry);
HOLDFAST_LATE(libldap, ldap_next_message);
HOLDFAST_LATE(libldap, ldap_parse_pageresponse_control);
HOLDFAST_LATE(libldap, ldap_parse_result);
HOLDFAST_LATE(libldap, ldap_result);
HOLDFAST_LATE(libldap, ldap_sasl_bind_s);
HOLDFAST_LATE(libldap, ldap_search_ext);
HOLDFAST_LATE(libldap, ldap_set_option);
HOLDFAST_LATE(libldap, ldap_start_tls_s);
HOLDFAST_LATE(libldap, ldap_str2dn);
HOLDFAST_LATE(libldap, ldap_unbind_ext_s);
HOLDFAST_LATE(libldap, ldap_value_free_len);

}  // namespace holdfast::proxy
