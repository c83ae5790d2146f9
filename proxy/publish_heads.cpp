#include "proxy/publish_heads.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <syslog.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <memory>

#include "journal/files.h"
#include "proxy/late_curl.h"

namespace holdfast::proxy {
namespace {

Status append_to(const std::string& path, const std::string& line) {
  FileDescriptor file(::open(path.c_str(), O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0644));
  // Of a file that we may only write to, nobody can say how it ends.
  if (!file && errno == EACCES) file = FileDescriptor(::open(path.c_str(), O_WRONLY | O_APPEND | O_CLOEXEC));
  struct stat before {};
  if (file && ::fstat(file.get(), &before) == 0) {
    // A line whose end was lost with the power takes no other with it.
    char last = '\n';
    bool is_torn =
        before.st_size > 0 && journal::read_at(file.get(), {&last, 1}, static_cast<std::uint64_t>(before.st_size) - 1) == 1 && last != '\n';
    if (journal::write_all(file.get(), (is_torn ? "\n" : "") + line + "\n") && ::fsync(file.get()) == 0) return {};
    int reason = errno;
    [[maybe_unused]] int cut = ::ftruncate(file.get(), before.st_size);
    errno = reason;
  }
  return Error{ErrorCode::io, fmt::format("journal.publish_heads: {}: cannot append: {}", path, std::strerror(errno))};
}

Status post_to(const std::string& url, const std::string& line) {
  if (Status loaded = libcurl.load(); !loaded) return Error{ErrorCode::unavailable, "journal.publish_heads: " + loaded.error().message};
  std::unique_ptr<CURL, FreedBy<curl_easy_cleanup>> curl(curl_easy_init());
  std::unique_ptr<curl_slist, FreedBy<curl_slist_free_all>> headers(curl_slist_append(nullptr, "Content-Type: text/plain"));
  auto ignore = +[](char*, std::size_t size, std::size_t count, void*) { return size * count; };
  curl_easy_setopt(curl.get(), CURLOPT_URL, url.c_str());
  curl_easy_setopt(curl.get(), CURLOPT_POSTFIELDS, line.c_str());
  curl_easy_setopt(curl.get(), CURLOPT_HTTPHEADER, headers.get());
  curl_easy_setopt(curl.get(), CURLOPT_WRITEFUNCTION, ignore);
  curl_easy_setopt(curl.get(), CURLOPT_FAILONERROR, 1L);
  curl_easy_setopt(curl.get(), CURLOPT_TIMEOUT, 30L);
  curl_easy_setopt(curl.get(), CURLOPT_NOSIGNAL, 1L);
  CURLcode code = curl_easy_perform(curl.get());
  if (code == CURLE_OK) return {};
  return Error{ErrorCode::unavailable, fmt::format("journal.publish_heads: {}: {}", url, curl_easy_strerror(code))};
}

}  // namespace

std::vector<journal::Witness> head_witnesses(const std::vector<std::string>& places) {
  std::vector<journal::Witness> witnesses;
  for (const std::string& place : places)
    witnesses.push_back({place, [place](const std::string& line) -> Status {
                           if (place.starts_with("http://") || place.starts_with("https://")) return post_to(place, line);
                           if (place != "syslog") return append_to(place, line);
                           ::syslog(LOG_MAIL | LOG_NOTICE, "%s", line.c_str());
                           return {};
                         }});
  return witnesses;
}

}  // namespace holdfast::proxy
