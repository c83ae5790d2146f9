#include "proxy/admin.h"

#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/http.h>
#include <fmt/format.h>
#include <pwd.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <system_error>

#include "journal/files.h"
#include "proxy/admin_client.h"

namespace holdfast::proxy {
namespace {

bool answers(const std::string& path) {
  FileDescriptor probe(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_un address = unix_address(path);
  return probe && ::connect(probe.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0;
}

/// The user at the other end of the socket.
std::optional<uid_t> user_of(evhttp_request* request) {
  bufferevent* buffer = evhttp_connection_get_bufferevent(evhttp_request_get_connection(request));
  ucred peer{};
  socklen_t size = sizeof peer;
  bool is_local = ::getsockopt(bufferevent_getfd(buffer), SOL_SOCKET, SO_PEERCRED, &peer, &size) == 0 && peer.pid > 0;
  return is_local ? std::optional(peer.uid) : std::nullopt;
}

Admin::Answer answer_of(const Admin::Work& work) {
  try {
    return work();
  } catch (const Json::exception& problem) {
    return Error{ErrorCode::invalid, problem.what()};
  }
}

/// An answer as it is sent.
struct HttpReply {
  HttpReply(const AnswerForm& form, const Admin::Answer& answer) : is_good(static_cast<bool>(answer)) {
    Json body = answer ? *answer : Json{{"error", answer.error().message}, {"code", static_cast<int>(answer.error().code)}};
    bool is_text = answer && form.to_text;
    if (is_text) type = form.type;
    text = is_text ? form.to_text(body) : to_line(body) + "\n";
  }
  bool is_good;
  const char* type = "application/json";
  std::string text;
};

void send_reply(evhttp_request* http, const HttpReply& reply) {
  if (evhttp_request_get_command(http) != EVHTTP_REQ_HEAD) evbuffer_add(evhttp_request_get_output_buffer(http), reply.text.data(), reply.text.size());
  evhttp_add_header(evhttp_request_get_output_headers(http), "Content-Type", reply.type);
  evhttp_send_reply(http, reply.is_good ? 200 : 400, reply.is_good ? "OK" : "Bad Request", nullptr);
}

}  // namespace

std::string Admin::Request::user() const {
  if (!uid) return "http";
  passwd entry{}, *found = nullptr;
  std::vector<char> memory(16 * 1024);
  ::getpwuid_r(*uid, &entry, memory.data(), memory.size(), &found);
  return found ? found->pw_name : fmt::format("uid {}", *uid);
}

Result<std::unique_ptr<Admin>> Admin::open(Loop& loop, const std::string& path) {
  auto failed = [&](const char* what) {
    return Error{ErrorCode::unavailable, fmt::format("{}: cannot {}: {}; choose another admin.socket", path, what, std::strerror(errno))};
  };
  if (answers(path)) return Error{ErrorCode::busy, fmt::format("{}: another Holdfast answers on this admin.socket; stop it first", path)};
  struct stat there {};
  bool is_other = ::lstat(path.c_str(), &there) == 0 && !S_ISSOCK(there.st_mode);
  if (is_other) return Error{ErrorCode::invalid, path + ": is there, and no socket; choose another admin.socket"};
  ::unlink(path.c_str());
  std::error_code ignored;
  std::filesystem::create_directories(std::filesystem::path(path).parent_path(), ignored);
  FileDescriptor socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!socket) return failed("make a socket");
  sockaddr_un address = unix_address(path);
  mode_t before = ::umask(0117);
  int bound = ::bind(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address);
  ::umask(before);
  if (bound != 0) return failed("bind");
  if (::listen(socket.get(), 64) != 0) return failed("listen");
  std::unique_ptr<Admin> admin(new Admin(loop, path));
  admin->http_ = evhttp_new(loop.base());
  evhttp_set_timeout(admin->http_, 5);
  evhttp_set_allowed_methods(admin->http_, EVHTTP_REQ_GET | EVHTTP_REQ_POST);
  evhttp_set_max_headers_size(admin->http_, 8192);
  evhttp_set_max_body_size(admin->http_, 64 << 20);
  if (evhttp_accept_socket(admin->http_, socket.get()) != 0) return failed("serve");
  (void)socket.release();  // evhttp's from here on
  return admin;
}

Result<std::unique_ptr<Admin>> Admin::open_http(Loop& loop, const HostPort& address) {
  std::unique_ptr<Admin> admin(new Admin(loop, ""));
  admin->http_ = evhttp_new(loop.base());
  evhttp_set_timeout(admin->http_, 5);
  evhttp_set_allowed_methods(admin->http_, EVHTTP_REQ_GET | EVHTTP_REQ_HEAD);
  evhttp_set_max_headers_size(admin->http_, 8192);
  evhttp_set_max_body_size(admin->http_, 1024);
  if (evhttp_bind_socket(admin->http_, address.host.c_str(), address.port) != 0)
    return Error{ErrorCode::unavailable,
                 fmt::format("{}: cannot listen for admin.http: {}; choose another address", to_string(address), std::strerror(errno))};
  return admin;
}

Admin::~Admin() {
  for (const auto& resource : resources_)
    for (std::thread& one : resource->working) one.join();
  if (http_) evhttp_free(http_);
  if (!path_.empty()) ::unlink(path_.c_str());
}

void Admin::on(const std::string& resource, Handler handler) { add(resource, {this, {}, std::move(handler), nullptr, {}}); }

void Admin::on_waiting(const std::string& resource, Handler handler) {
  on_prepared(resource, [handler = std::move(handler)](const Request& request) -> Work { return [handler, request] { return handler(request); }; });
}

void Admin::on_prepared(const std::string& resource, Preparation preparation, AnswerForm form) {
  add(resource, {this, form, nullptr, std::move(preparation), {}});
}

void Admin::add(const std::string& name, Resource resource) {
  resources_.push_back(std::make_unique<Resource>(std::move(resource)));
  evhttp_set_cb(http_, name.c_str(), &Admin::serve, resources_.back().get());
}

void Admin::serve(evhttp_request* http, void* asked) {
  Resource& resource = *static_cast<Resource*>(asked);
  Request request;
  request.uid = user_of(http);
  evbuffer* sent = evhttp_request_get_input_buffer(http);
  std::string text(evbuffer_get_length(sent), '\0');
  evbuffer_copyout(sent, text.data(), text.size());
  request.body = text.empty() ? Json::object() : Json::parse(text, nullptr, false);
  if (!request.body.is_object()) return send_reply(http, {resource.form, Error{ErrorCode::invalid, "the request is no JSON object"}});
  Work work;
  Answer answer = answer_of([&]() -> Answer {
    if (resource.handler) return resource.handler(request);
    work = resource.preparation(request);
    return Json();
  });
  if (work)
    resource.admin->begin(http, resource, std::move(work));
  else
    send_reply(http, {resource.form, answer});
}

/// Has the work done, and its answer sent. Whoever asked may have gone by then: libevent keeps the request for us.
void Admin::begin(evhttp_request* http, Resource& resource, Work work) {
  constexpr std::size_t most_at_once = 32;
  if (resource.working.size() >= most_at_once)
    return send_reply(
        http, {resource.form, Error{ErrorCode::busy, fmt::format("{} such requests are being worked on already; try again later", most_at_once)}});
  auto thread = resource.working.emplace(resource.working.end());
  try {
    *thread = std::thread([this, http, &resource, thread, work] {
      HttpReply reply(resource.form, answer_of(work));  // a long one takes its time
      loop_.post([http, &resource, thread, reply = std::move(reply)] {
        thread->join();
        resource.working.erase(thread);
        send_reply(http, reply);
      });
    });
  } catch (const std::system_error&) {  // no more threads: others who ask wait a little
    resource.working.erase(thread);
    send_reply(http, {resource.form, answer_of(work)});
  }
}

}  // namespace holdfast::proxy
