// The admin socket: HTTP on a Unix socket, for `holdfast status` and whoever else asks on this machine.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <functional>
#include <list>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "journal/result.h"
#include "proxy/json.h"
#include "proxy/loop.h"
#include "proxy/network.h"

struct evhttp;
struct evhttp_request;

namespace holdfast::proxy {

/// How an answer is written: as JSON on one line, or as a text made of it, of that media type.
struct AnswerForm {
  const char* type = "application/json";
  std::string (*to_text)(const Json&) = nullptr;
};

class Admin {
 public:
  struct Request {
    std::optional<uid_t> uid;  ///< of who asks, as the kernel says; none for open_http()
    Json body;                 ///< an object; empty when nothing was sent
    /// The name of who asks, or "http". Waits, where names of users come from a server that is away. Thread-safe.
    std::string user() const;
  };
  using Answer = Result<Json>;
  using Handler = std::function<Answer(const Request&)>;
  /// What is left to do for an answer, and may wait: for the disk, or for another thread.
  using Work = std::function<Answer()>;
  using Preparation = std::function<Work(const Request&)>;

  /// Listens on path, which only the user and group of the process may use. A socket that a dead process left is replaced;
  /// one that answers is an error (busy).
  static Result<std::unique_ptr<Admin>> open(Loop& loop, const std::string& path);
  /// Listens on an address of this machine's own, for programs that may read but not command.
  static Result<std::unique_ptr<Admin>> open_http(Loop& loop, const HostPort& address);
  /// Waits for the work that is under way.
  ~Admin();

  /// Answers requests for a resource such as "/status". The handler is called on the loop's thread, and does not wait.
  void on(const std::string& resource, Handler handler);
  /// The same for what may have to wait: the handler is called on a thread of its own. No more than 32 requests for a resource are
  /// worked on at once; others are told that it is busy.
  void on_waiting(const std::string& resource, Handler handler);
  /// The same where something is looked at on the loop's thread first.
  void on_prepared(const std::string& resource, Preparation preparation, AnswerForm form = {});

 private:
  Admin(Loop& loop, std::string path) : loop_(loop), path_(std::move(path)) {}
  struct Resource {
    Admin* admin;
    AnswerForm form;
    Handler handler;          ///< this,
    Preparation preparation;  ///< or this
    std::list<std::thread> working;
  };
  void add(const std::string& name, Resource resource);
  static void serve(evhttp_request* request, void* resource);
  void begin(evhttp_request* request, Resource& resource, Work work);
  Loop& loop_;
  std::string path_;
  std::vector<std::unique_ptr<Resource>> resources_;
  evhttp* http_ = nullptr;
};

}  // namespace holdfast::proxy
