// GMime, loaded when it is first needed (late_library.h): what of it is used.
#pragma once

#include <gmime/gmime.h>

#include "proxy/late_library.h"

namespace holdfast::proxy {

inline constinit LateLibrary libgmime(HOLDFAST_LIBGMIME);
HOLDFAST_LATE(libgmime, g_mime_content_disposition_get_disposition);
HOLDFAST_LATE(libgmime, g_mime_content_disposition_get_parameters);
HOLDFAST_LATE(libgmime, g_mime_content_disposition_parse);
HOLDFAST_LATE(libgmime, g_mime_content_encoding_from_string);
HOLDFAST_LATE(libgmime, g_mime_content_type_get_media_subtype);
HOLDFAST_LATE(libgmime, g_mime_content_type_get_media_type);
HOLDFAST_LATE(libgmime, g_mime_content_type_get_parameters);
HOLDFAST_LATE(libgmime, g_mime_content_type_parse);
HOLDFAST_LATE(libgmime, g_mime_encoding_flush);
HOLDFAST_LATE(libgmime, g_mime_encoding_init_decode);
HOLDFAST_LATE(libgmime, g_mime_encoding_outlen);
HOLDFAST_LATE(libgmime, g_mime_encoding_step);
HOLDFAST_LATE(libgmime, g_mime_init);
HOLDFAST_LATE(libgmime, g_mime_param_get_name);
HOLDFAST_LATE(libgmime, g_mime_param_get_value);
HOLDFAST_LATE(libgmime, g_mime_param_list_get_parameter_at);
HOLDFAST_LATE(libgmime, g_mime_param_list_length);
HOLDFAST_LATE(libgmime, g_mime_utils_header_decode_date);
HOLDFAST_LATE(libgmime, g_mime_utils_header_decode_text);
HOLDFAST_LATE(libgmime, g_mime_utils_header_encode_text);
HOLDFAST_LATE(libgmime, g_object_unref);
HOLDFAST_LATE(libgmime, g_type_check_instance_cast);
HOLDFAST_LATE(libgmime, g_type_check_instance_is_a);
HOLDFAST_LATE(libgmime, internet_address_get_name);
HOLDFAST_LATE(libgmime, internet_address_group_get_members);
HOLDFAST_LATE(libgmime, internet_address_group_get_type);
HOLDFAST_LATE(libgmime, internet_address_list_get_address);
HOLDFAST_LATE(libgmime, internet_address_list_length);
HOLDFAST_LATE(libgmime, internet_address_list_parse);
HOLDFAST_LATE(libgmime, internet_address_mailbox_get_addr);
HOLDFAST_LATE(libgmime, internet_address_mailbox_get_type);

}  // namespace holdfast::proxy
