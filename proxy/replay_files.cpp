// Replays to files: a Maildir, an mbox, or a file a message. A message appears whole or not at all; what was
// written is compared with the journal's SHA-256 before it does.
#include <fcntl.h>
#include <fmt/chrono.h>
#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <ctime>
#include <mutex>
#include <thread>

#include "journal/files.h"
#include "proxy/replay.h"

namespace holdfast::proxy {
namespace {

Error file_error(const std::string& path) {
  ErrorCode code = errno == ENOSPC || errno == EDQUOT ? ErrorCode::no_space : errno == EACCES ? ErrorCode::permission : ErrorCode::io;
  return {code, fmt::format("{}: cannot be written: {}", path, std::strerror(errno))};
}

Status write_to(const FileDescriptor& file, std::string_view bytes, const std::string& path) {
  if (journal::write_all(file.get(), bytes)) return {};
  return file_error(path);
}

/// Why an entry could not be written: the target, which ends the replay, or the entry itself, which does not.
struct Written {
  Status target;
  std::string damage;
};

/// Hands the frames to sink, and says whether their SHA-256 is the recorded one (where the payload is the
/// content itself).
template <class Sink>
Written write_payload(const ReplayItem& item, Sink sink) {
  journal::Sha256 hash;
  std::uint64_t size = 0;
  for (std::uint32_t index = 0; index < item.payload.frames; ++index) {
    auto frame = item.payload.frame(index);
    if (!frame || !*frame) return {{}, frame ? "the content is not whole" : frame.error().message};
    hash.update(**frame);
    size += (*frame)->size();
    if (Status written = sink(**frame); !written) return {written, {}};
  }
  bool is_content = item.payload.size == item.entry.message.size;
  if (size != item.payload.size || (is_content && hash.finish() != item.entry.message.content_hash))
    return {{}, "the content's SHA-256 is not the recorded one"};
  return {};
}

class FileTarget : public ReplayTarget {
 public:
  explicit FileTarget(std::uint64_t writers) : writers_(std::min<std::uint64_t>(writers, std::max(1U, std::thread::hardware_concurrency()))) {}

  Status run(ReplayJob& job) final {
    std::vector<std::thread> helpers;
    for (std::uint64_t i = 1; i < writers_; ++i) helpers.emplace_back([this, &job] { write_all_of(job); });
    write_all_of(job);
    for (std::thread& helper : helpers) helper.join();
    return problem_ ? end() : problem_;
  }

 protected:
  /// Writes one entry; sets the result's detail, and file_size. Called by all writers at once.
  virtual Written write(const ReplayItem& item, ReplayResult& result) = 0;
  /// All that was written is on the disk.
  virtual Status end() = 0;

 private:
  void write_all_of(ReplayJob& job) {
    std::unique_lock lock(asking_);
    for (;;) {
      std::unique_ptr<ReplayItem> item = problem_ ? job.next() : nullptr;
      if (!item) return;
      lock.unlock();
      ReplayResult result{item->entry.id, ReplayResult::State::sent, {}, item->recipients};
      Written written = write(*item, result);
      lock.lock();
      if (!written.target) {
        problem_ = written.target;
        return;
      }
      if (!written.damage.empty()) result = {item->entry.id, ReplayResult::State::failed, written.damage, {}};
      job.done(result);
    }
  }

  const std::uint64_t writers_;
  std::mutex asking_;  ///< held by who talks to the job
  Status problem_;     ///< of the target
};

/// A file a message, made under another name and renamed when it is whole.
class FolderTarget : public FileTarget {
 public:
  FolderTarget(std::string folder, bool is_maildir, std::uint64_t writers)
      : FileTarget(writers), folder_(std::move(folder)), is_maildir_(is_maildir) {}

  Status open() {
    std::vector<std::string> folders{folder_};
    if (is_maildir_)
      for (const char* name : {"/cur", "/new", "/tmp"}) folders.push_back(folder_ + name);
    for (const std::string& one : folders)
      if (Status made = journal::make_folder(one); !made) return made;
    handle_ = FileDescriptor(::open(folder_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    return handle_ ? Status() : Status(file_error(folder_));
  }

 private:
  Written write(const ReplayItem& item, ReplayResult& result) override {
    const journal::MessageRecord& message = item.entry.message;
    std::string name = is_maildir_ ? fmt::format("{}.M{:06}P{}.holdfast", message.time_us / 1000000, message.time_us % 1000000, item.entry.id)
                                   : fmt::format("{}.eml", item.entry.id);
    std::string draft = is_maildir_ ? "tmp/" + name : "." + name + ".part";
    std::string final_name = is_maildir_ ? "new/" + name : name;
    FileDescriptor file(::openat(handle_.get(), draft.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600));
    if (!file) return {file_error(folder_ + "/" + draft), {}};
    Written written = write_payload(item, [&](std::string_view piece) { return write_to(file, piece, folder_ + "/" + draft); });
    bool is_whole = written.target && written.damage.empty();
    // Mail programs take the file's time for when the message came.
    timespec time{static_cast<time_t>(message.time_us / 1000000), static_cast<long>(message.time_us % 1000000 * 1000)};
    timespec times[2] = {time, time};
    if (is_whole) ::futimens(file.get(), times);
    if (is_whole && ::renameat(handle_.get(), draft.c_str(), handle_.get(), final_name.c_str()) != 0) {
      written.target = file_error(folder_ + "/" + final_name);
      is_whole = false;
    }
    if (!is_whole) ::unlinkat(handle_.get(), draft.c_str(), 0);
    result.detail = folder_ + "/" + final_name;
    return written;
  }

  Status end() override { return ::syncfs(handle_.get()) == 0 ? Status() : Status(file_error(folder_)); }

  std::string folder_;
  bool is_maildir_;
  FileDescriptor handle_;
};

/// One file, as RFC 4155 describes it, with the content's own line ends. Lines that begin with "From ", after
/// any number of ">", get one ">" more (mboxrd): nothing in a message can begin another one, and it can be
/// undone.
class MboxTarget : public FileTarget {
 public:
  explicit MboxTarget(std::string path) : FileTarget(1), path_(std::move(path)) {}

  Status open(ReplayProgress& progress) {
    file_ = FileDescriptor(::open(path_.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600));
    struct stat info {};
    if (!file_ || ::fstat(file_.get(), &info) != 0) return file_error(path_);
    std::uint64_t known_size = progress.file_size();
    bool is_ours = progress.is_resumed() && static_cast<std::uint64_t>(info.st_size) >= known_size;
    if (!is_ours && (info.st_size > 0 || known_size > 0))
      return Error{ErrorCode::busy, fmt::format("{}: is not empty, and not what an earlier run of this replay left; name a file of its own", path_)};
    // What an interruption left unfinished goes.
    if (::ftruncate(file_.get(), static_cast<off_t>(known_size)) != 0 || ::lseek(file_.get(), 0, SEEK_END) < 0) return file_error(path_);
    size_ = known_size;
    return progress.is_resumed() ? Status() : progress.note(0, {});  // from now on the file is ours
  }

 private:
  Written write(const ReplayItem& item, ReplayResult& result) override {
    text_ = from_line(item.entry.message);
    is_line_start_ = true;
    Written written = write_payload(item, [&](std::string_view piece) {
      append_quoted(piece);
      return flush(1 << 20);
    });
    if (written.target && written.damage.empty()) {
      if (!line_.empty()) end_line();
      if (!text_.empty() && text_.back() != '\n') text_ += '\n';
      text_ += '\n';
      written.target = flush(0);
    }
    bool is_whole = written.target && written.damage.empty();
    if (is_whole) {
      size_ += written_;
    } else {
      line_.clear();
      if (::ftruncate(file_.get(), static_cast<off_t>(size_)) != 0 || ::lseek(file_.get(), 0, SEEK_END) < 0) written.target = file_error(path_);
    }
    written_ = 0;
    result.detail = path_;
    result.file_size = size_;
    return written;
  }

  static std::string from_line(const journal::MessageRecord& message) {
    std::string sender;
    for (char c : message.mail_from) sender += c > ' ' && c < 0x7f ? c : '_';
    return fmt::format("From {} {:%a %b %e %H:%M:%S %Y}\n", sender.empty() ? "MAILER-DAEMON" : sender,
                       fmt::gmtime(static_cast<std::time_t>(message.time_us / 1000000)));
  }

  /// The begin of a line is kept back until it is clear whether it must be quoted.
  void append_quoted(std::string_view piece) {
    while (!piece.empty()) {
      if (is_line_start_) {
        std::size_t wanted = 0;
        while (wanted < piece.size() && !is_decided(line_)) line_ += piece[wanted++];
        piece.remove_prefix(wanted);
        if (is_decided(line_)) end_line();
        continue;
      }
      std::size_t end = piece.find('\n');
      std::string_view part = piece.substr(0, end == std::string_view::npos ? piece.size() : end + 1);
      text_ += part;
      piece.remove_prefix(part.size());
      is_line_start_ = end != std::string_view::npos;
    }
  }

  static bool is_from(std::string_view line) {
    line.remove_prefix(std::min(line.find_first_not_of('>'), line.size()));
    return line.starts_with("From ");
  }
  /// True once it is clear that it is, or is not, a From line.
  static bool is_decided(std::string_view line) {
    if (line.ends_with('\n')) return true;
    line.remove_prefix(std::min(line.find_first_not_of('>'), line.size()));
    std::string_view from = "From ";
    return line.starts_with(from) || line != from.substr(0, std::min(line.size(), from.size()));
  }
  void end_line() {
    if (is_from(line_)) text_ += '>';
    text_ += line_;
    is_line_start_ = line_.ends_with('\n');
    line_.clear();
  }

  Status flush(std::size_t above) {
    if (text_.size() <= above) return {};
    Status written = write_to(file_, text_, path_);
    written_ += text_.size();
    text_.clear();
    return written;
  }

  Status end() override { return ::fsync(file_.get()) == 0 ? Status() : Status(file_error(path_)); }

  std::string path_;
  FileDescriptor file_;
  std::uint64_t size_ = 0, written_ = 0;
  std::string text_, line_;
  bool is_line_start_ = true;
};

}  // namespace

Result<std::unique_ptr<ReplayTarget>> open_file_target(const std::string& kind, const std::string& path, const std::string& journal,
                                                       ReplayProgress& progress, std::uint64_t writers) {
  if (journal::is_within(path, journal))
    return Error{ErrorCode::permission, path + ": is in the journal itself, where no content lies in the clear; name a place of its own"};
  if (kind == "mbox") {
    auto target = std::make_unique<MboxTarget>(path);
    if (Status opened = target->open(progress); !opened) return opened.error();
    return std::unique_ptr<ReplayTarget>(std::move(target));
  }
  auto target = std::make_unique<FolderTarget>(path, kind == "maildir", writers);
  if (Status opened = target->open(); !opened) return opened.error();
  return std::unique_ptr<ReplayTarget>(std::move(target));
}

}  // namespace holdfast::proxy
