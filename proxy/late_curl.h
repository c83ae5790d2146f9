// libcurl, loaded when it is first needed (late_library.h): what of it is used.
#pragma once

#include <curl/curl.h>

#include "proxy/late_library.h"

namespace holdfast::proxy {

inline constinit LateLibrary libcurl(HOLDFAST_LIBCURL);
HOLDFAST_LATE(libcurl, curl_easy_cleanup);
HOLDFAST_LATE(libcurl, curl_easy_init);
HOLDFAST_LATE(libcurl, curl_easy_perform);
HOLDFAST_LATE(libcurl, curl_easy_setopt);
HOLDFAST_LATE(libcurl, curl_easy_strerror);
HOLDFAST_LATE(libcurl, curl_slist_append);
HOLDFAST_LATE(libcurl, curl_slist_free_all);

}  // namespace holdfast::proxy
