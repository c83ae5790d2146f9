// The admin socket: HTTP on a Unix socket, for `holdfast status` and whoever else asks on this machine.
#pragma once

#include <event2/event.h>

#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "journal/result.h"
#include "proxy/json.h"
#include "proxy/network.h"

struct evhttp;
struct evhttp_request;

namespace holdfast::proxy {

class Admin {
 public:
  struct Request {
    std::string user;             ///< who asks, as the kernel says; "http" for open_http()
    Json body;                    ///< an object; empty when nothing was sent
  };
  using Answer = Result<Json>;
  using Handler = std::function<Answer(const Request&)>;

  /// Listens on path, which only the user and group of the process may use. A socket that a dead process left is replaced;
  /// one that answers is an error (busy).
  static Result<std::unique_ptr<Admin>> open(event_base* base, const std::string& path);
  /// Listens on an address of this machine's own, for programs that may read but not command.
  static Result<std::unique_ptr<Admin>> open_http(event_base* base, const HostPort& address);
  ~Admin();

  /// Answers requests for a resource such as "/status". The handler is called on the base's thread.
  void on(const std::string& resource, Handler handler);
  /// The same, with a text made of the answer, of that media type.
  void on_text(const std::string& resource, Handler handler, const char* type, std::string (*to_text)(const Json&));

 private:
  explicit Admin(std::string path) : path_(std::move(path)) {}
  struct Resource {
    Handler handler;
    const char* type = "application/json";
    std::string (*to_text)(const Json&) = nullptr;  ///< null for JSON on one line
  };
  void add(const std::string& name, Resource resource);
  static void serve(evhttp_request* request, void* resource);
  std::string path_;
  std::vector<std::unique_ptr<Resource>> resources_;
  evhttp* http_ = nullptr;
};

/// Asks a running daemon for a resource on the socket at path, with what it needs to know. Errors: the daemon's own, no_daemon, or
/// unavailable when it does not answer within patience.
Result<Json> ask_admin(const std::string& path, const std::string& resource, const Json& body = Json::object(),
                       std::chrono::milliseconds patience = std::chrono::seconds(5));

/// RFC 3339, UTC, with microseconds.
std::string format_time(std::int64_t us);

}  // namespace holdfast::proxy
