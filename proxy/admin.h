// The admin socket: HTTP on a Unix socket, for `holdfast status` and whoever else asks on this machine.
#pragma once

#include <event2/event.h>

#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>

#include "journal/result.h"

struct evhttp;

namespace holdfast::proxy {

class Admin {
 public:
  using StatusSource = std::function<nlohmann::ordered_json()>;

  /// Listens on path, which only the user and group of the process may use. A socket that a dead process left is replaced;
  /// one that answers is an error (busy). status is called on the base's thread.
  static Result<std::unique_ptr<Admin>> open(event_base* base, const std::string& path, StatusSource status);
  ~Admin();

 private:
  Admin(std::string path, StatusSource status) : path_(std::move(path)), status_(std::move(status)) {}
  std::string path_;
  StatusSource status_;
  evhttp* http_ = nullptr;
};

/// Asks a running daemon: GET resource on the socket at path. Error: unavailable, saying what to do.
Result<nlohmann::ordered_json> ask_admin(const std::string& path, const std::string& resource);

/// RFC 3339, UTC, with microseconds.
std::string format_time(std::int64_t us);

}  // namespace holdfast::proxy
