// GLib, loaded when it is first needed (late_library.h): what of it is used.
#pragma once

#include <glib.h>

#include "proxy/late_library.h"

namespace holdfast::proxy {

inline constinit LateLibrary libglib(HOLDFAST_LIBGLIB);
HOLDFAST_LATE(libglib, g_base64_decode);
HOLDFAST_LATE(libglib, g_base64_encode);
HOLDFAST_LATE(libglib, g_convert);
HOLDFAST_LATE(libglib, g_date_time_get_microsecond);
HOLDFAST_LATE(libglib, g_date_time_get_utc_offset);
HOLDFAST_LATE(libglib, g_date_time_new_from_iso8601);
HOLDFAST_LATE(libglib, g_date_time_to_unix);
HOLDFAST_LATE(libglib, g_date_time_unref);
HOLDFAST_LATE(libglib, g_free);
HOLDFAST_LATE(libglib, g_time_zone_new_utc);
HOLDFAST_LATE(libglib, g_time_zone_unref);
HOLDFAST_LATE(libglib, g_utf8_casefold);
HOLDFAST_LATE(libglib, g_utf8_make_valid);
HOLDFAST_LATE(libglib, g_utf8_normalize);
HOLDFAST_LATE(libglib, g_utf8_validate);

}  // namespace holdfast::proxy
