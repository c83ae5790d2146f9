#include "proxy/mime.h"

#include <algorithm>
#include <memory>

#include "proxy/blanks.h"
#include "proxy/careless_header.h"
#include "proxy/fold.h"
#include "proxy/late_glib.h"
#include "proxy/late_gmime.h"

namespace holdfast::proxy {
namespace {

constexpr std::size_t deepest = 50;
constexpr std::size_t most_parts = 10'000;
/// Of the headers of all parts together: behind it no more parts are looked for.
constexpr std::size_t most_header_bytes = longest_header_read;
/// Each colon may begin a group, and GMime goes into groups in groups by recursion.
constexpr std::ptrdiff_t most_colons = 1000;
/// Of what stands in place of an address.
constexpr std::size_t longest_name = 998;

/// GMime has one global state, set up once.
void start_gmime() {
  static const bool is_started = (g_mime_init(), true);
  (void)is_started;
}

template <class T>
using Owned = std::unique_ptr<T, FreedBy<g_object_unref>>;

std::string text_of(const char* text) { return text ? text : ""; }

std::string without_quotes(const std::string& local_part) {
  if (local_part.size() < 2 || local_part.front() != '"' || local_part.back() != '"') return local_part;
  std::string plain;
  for (std::size_t i = 1; i + 1 < local_part.size(); ++i) {
    if (local_part[i] == '\\' && i + 2 < local_part.size()) ++i;
    plain += local_part[i];
  }
  return plain;
}

std::vector<std::pair<std::string, std::string>> parameters_of(GMimeParamList* list) {
  std::vector<std::pair<std::string, std::string>> all;
  for (int i = 0, count = list ? g_mime_param_list_length(list) : 0; i < count; ++i) {
    GMimeParam* one = g_mime_param_list_get_parameter_at(list, i);
    all.emplace_back(text_of(g_mime_param_get_name(one)), text_of(g_mime_param_get_value(one)));
  }
  return all;
}

void read_header(std::string_view message, MimePart& part, bool in_digest) {
  std::string_view header = part.header.of(message);
  if (in_digest) part.type = "message", part.subtype = "rfc822";
  if (std::string value = field_of(header, "Content-Type"); !value.empty()) {
    Owned<GMimeContentType> type(g_mime_content_type_parse(nullptr, with_regular_words(value).c_str()));
    if (type) {
      part.type = fold_ascii(text_of(g_mime_content_type_get_media_type(type.get())));
      part.subtype = fold_ascii(text_of(g_mime_content_type_get_media_subtype(type.get())));
      part.parameters = parameters_of(g_mime_content_type_get_parameters(type.get()));
    }
    if (part.type.empty() || part.subtype.empty()) part.type = "text", part.subtype = "plain";
  }
  if (std::string value = field_of(header, "Content-Disposition"); !value.empty()) {
    Owned<GMimeContentDisposition> disposition(g_mime_content_disposition_parse(nullptr, with_regular_words(value).c_str()));
    if (disposition) {
      part.disposition = fold_ascii(text_of(g_mime_content_disposition_get_disposition(disposition.get())));
      part.disposition_parameters = parameters_of(g_mime_content_disposition_get_parameters(disposition.get()));
    }
  }
  part.id = trimmed(field_of(header, "Content-ID"));
  part.description = trimmed(field_of(header, "Content-Description"));
  part.md5 = trimmed(field_of(header, "Content-MD5"));
  part.language = trimmed(field_of(header, "Content-Language"));
  part.location = trimmed(field_of(header, "Content-Location"));
  if (std::string value(trimmed(field_of(header, "Content-Transfer-Encoding"))); !value.empty()) part.encoding = fold_ascii(value);
}

/// A field's value on one line.
std::string unfolded(std::string_view field) {
  std::string value;
  for (char c : field.substr(field.find(':') + 1))
    if (c != '\r' && c != '\n' && c != '\0') value += c;
  std::size_t begin = value.find_first_not_of(" \t");
  return begin == std::string::npos ? "" : value.substr(begin);
}

std::string boundary_of(const MimePart& part) {
  for (const auto& [name, value] : part.parameters)
    if (is_same_name(name, "boundary")) return value;
  return "";
}

/// Goes through a message once, line by line, with the parts that are open at that line.
class Parser {
 public:
  explicit Parser(std::string_view message) : message_(message) {}

  MimePart parse() {
    open_.emplace_back();  // holds the message as if it were its part
    open_.back().is_in_header = false;
    open(0, false);
    for (std::size_t begin = 0, end; begin < message_.size(); begin = end) {
      std::size_t line_end = message_.find('\n', begin);
      end = line_end == std::string_view::npos ? message_.size() : line_end + 1;
      std::string_view line = message_.substr(begin, end - begin);
      bool is_boundary = line.starts_with("--") && take_boundary(line, begin);
      bool is_empty = line == "\n" || line == "\r\n";
      if (!is_boundary && is_empty && open_.back().is_in_header) end_header(end);
    }
    close_inside(0, message_.size());
    return std::move(open_.front().part.children.front());
  }

 private:
  struct OpenPart {
    MimePart part;
    bool is_in_digest = false, is_in_header = true;
    std::string delimiter;  ///< of a multipart, while more parts may come
  };

  bool is_full() const { return parts_ >= most_parts || header_bytes_ > most_header_bytes; }

  void open(std::size_t begin, bool is_in_digest) {
    ++parts_;
    open_.emplace_back();
    open_.back().part.header.begin = begin;
    open_.back().is_in_digest = is_in_digest;
  }

  /// The header of the innermost part ends there.
  void end_header(std::size_t end) {
    OpenPart& innermost = open_.back();
    MimePart& part = innermost.part;
    innermost.is_in_header = false;
    part.header.end = std::max(part.header.begin, end);
    header_bytes_ += part.header.size();
    read_header(message_, part, innermost.is_in_digest);
    if (open_.size() > deepest + 1 || is_full()) return;
    std::string boundary = part.type == "multipart" ? boundary_of(part) : "";
    if (!boundary.empty()) innermost.delimiter = "--" + boundary;
    bool is_as_it_is = part.encoding == "7bit" || part.encoding == "8bit" || part.encoding == "binary";
    if (part.type == "message" && part.subtype == "rfc822" && is_as_it_is) open(part.header.end, false);
  }

  /// Whether the line is a boundary: then it ends all that is open inside the innermost part that has this boundary. Some
  /// mailers give a multipart the boundary of the one that holds it: up to its end it is the inner one's.
  bool take_boundary(std::string_view line, std::size_t begin) {
    if (is_full()) return false;
    for (std::size_t i = open_.size(); i-- > 0;) {
      if (open_[i].delimiter.empty() || !line.starts_with(open_[i].delimiter)) continue;
      std::string_view rest = line.substr(open_[i].delimiter.size());
      bool is_last = rest.starts_with("--");
      if (is_last) rest.remove_prefix(2);
      if (rest.find_first_not_of(" \t\r\n") != std::string_view::npos) continue;
      close_inside(i, before_line_end(begin));
      if (is_last)
        open_[i].delimiter.clear();
      else
        open(begin + line.size(), open_[i].part.subtype == "digest");
      return true;
    }
    return false;
  }

  /// RFC 2046 5.1.1: the line end before a boundary belongs to the boundary.
  std::size_t before_line_end(std::size_t end) const {
    if (end > 0 && message_[end - 1] == '\n') --end;
    if (end > 0 && message_[end - 1] == '\r') --end;
    return end;
  }

  /// All that is open inside this part ends there.
  void close_inside(std::size_t outer, std::size_t end) {
    while (open_.size() > outer + 1) {
      if (open_.back().is_in_header) {  // which may open the message in it
        end_header(end);
        continue;
      }
      MimePart part = std::move(open_.back().part);
      open_.pop_back();
      part.header = {std::min(part.header.begin, end), std::min(part.header.end, end)};
      part.body = {part.header.end, end};
      // Without any part to be found it is shown as what it is then: text.
      if (part.type == "multipart" && part.children.empty()) part.type = "text", part.subtype = "plain", part.parameters.clear();
      open_.back().part.children.push_back(std::move(part));
    }
  }

  std::string_view message_;
  std::vector<OpenPart> open_;  ///< each is a part of the one before
  std::size_t parts_ = 0, header_bytes_ = 0;
};

/// Text of an unknown or wrong charset is taken as Windows-1252, in which every byte is something.
std::string to_utf8(const std::string& text, const std::string& charset) {
  bool is_utf8 = charset.empty() || is_same_name(charset, "utf-8") || is_same_name(charset, "us-ascii");
  if (is_utf8 && g_utf8_validate(text.data(), static_cast<gssize>(text.size()), nullptr)) return text;
  for (const char* name : {is_utf8 ? "windows-1252" : charset.c_str(), "windows-1252", "iso-8859-1"}) {
    gsize size = 0;
    char* converted = g_convert(text.data(), static_cast<gssize>(text.size()), "UTF-8", name, nullptr, &size, nullptr);
    if (!converted) continue;
    std::string done(converted, size);
    g_free(converted);
    return done;
  }
  return text;
}

MailAddress mailbox_of(InternetAddressMailbox* mailbox, const char* name) {
  std::string address = text_of(internet_address_mailbox_get_addr(mailbox));
  std::size_t at = address.rfind('@');
  std::string host = at == std::string::npos ? "" : address.substr(at + 1);
  return {text_of(name), without_quotes(address.substr(0, at)), host.empty() ? "MISSING_DOMAIN" : host};
}

/// A group is its name, its members and an empty address.
void add_addresses(InternetAddressList* addresses, int depth, std::vector<MailAddress>& found) {
  constexpr int deepest_group = 3;
  for (int i = 0, count = addresses ? internet_address_list_length(addresses) : 0; i < count; ++i) {
    InternetAddress* one = internet_address_list_get_address(addresses, i);
    const char* name = internet_address_get_name(one);
    if (INTERNET_ADDRESS_IS_MAILBOX(one)) found.push_back(mailbox_of(INTERNET_ADDRESS_MAILBOX(one), name));
    if (!INTERNET_ADDRESS_IS_GROUP(one)) continue;
    found.push_back({"", text_of(name), ""});
    if (depth < deepest_group) add_addresses(internet_address_group_get_members(INTERNET_ADDRESS_GROUP(one)), depth + 1, found);
    found.push_back({});
  }
}

}  // namespace

Status load_mime() { return libgmime.load(); }

bool is_same_name(std::string_view a, std::string_view b) {
  return a.size() == b.size() && std::equal(a.begin(), a.end(), b.begin(), [](char x, char y) { return lower_ascii(x) == lower_ascii(y); });
}

Range header_of(std::string_view text) {
  std::size_t at = 0;
  while (at < text.size()) {
    if (text[at] == '\n') return {0, at + 1};
    if (text[at] == '\r' && at + 1 < text.size() && text[at + 1] == '\n') return {0, at + 2};
    std::size_t end = text.find('\n', at);
    if (end == std::string_view::npos) break;
    at = end + 1;
  }
  return {0, text.size()};
}

std::string field_of(std::string_view header, std::string_view name) {
  std::string value;
  bool is_found = false;
  each_field(header.substr(0, longest_header_read), [&](std::string_view field_name, std::string_view field) {
    if (is_found || !is_same_name(field_name, name)) return;
    is_found = true;
    value = unfolded(field);
  });
  if (value.size() > longest_field_value) value.resize(longest_field_value);
  return value;
}

std::string address_field_of(std::string_view header, std::string_view name) {
  std::string all;
  each_field(header.substr(0, longest_header_read), [&](std::string_view field_name, std::string_view field) {
    if (!is_same_name(field_name, name)) return;
    std::string value = unfolded(field);
    if (!all.empty() && !value.empty()) all += ", ";
    all += value;
  });
  if (all.size() > longest_field_value) all.resize(all.rfind(',', longest_field_value) + 1);
  return all;
}

MimePart parse_mime(std::string_view message) {
  start_gmime();
  return Parser(message).parse();
}

std::string decode_header_text(const std::string& raw) {
  if (is_printable_ascii(raw) && raw.find("=?") == std::string::npos) return raw;
  start_gmime();
  char* decoded = g_mime_utils_header_decode_text(nullptr, with_regular_words(raw).c_str());
  char* valid = g_utf8_make_valid(decoded ? decoded : raw.c_str(), -1);
  std::string text = valid;
  for (char* one : {decoded, valid}) g_free(one);
  return text;
}

std::string encode_header_text(const std::string& text) {
  start_gmime();
  char* words = g_mime_utils_header_encode_text(nullptr, text.c_str(), "utf-8");
  std::string encoded = words ? words : text;
  g_free(words);
  std::erase_if(encoded, [](char c) { return c == '\r' || c == '\n'; });
  return encoded;
}

std::optional<MailDate> parse_mail_date(const std::string& value) {
  start_gmime();
  GDateTime* date = g_mime_utils_header_decode_date(value.c_str());
  if (!date) return std::nullopt;
  MailDate found{g_date_time_to_unix(date), g_date_time_get_utc_offset(date) / G_USEC_PER_SEC};
  g_date_time_unref(date);
  return found;
}

std::string decode_body(std::string_view message, const MimePart& part) {
  start_gmime();
  std::string_view raw = part.body.of(message);
  GMimeContentEncoding encoding = g_mime_content_encoding_from_string(part.encoding.c_str());
  std::string decoded(raw);
  if (encoding == GMIME_CONTENT_ENCODING_BASE64 || encoding == GMIME_CONTENT_ENCODING_QUOTEDPRINTABLE ||
      encoding == GMIME_CONTENT_ENCODING_UUENCODE) {
    GMimeEncoding state;
    g_mime_encoding_init_decode(&state, encoding);
    std::string out(g_mime_encoding_outlen(&state, raw.size()) + 16, '\0');
    std::size_t size = g_mime_encoding_step(&state, raw.data(), raw.size(), out.data());
    size += g_mime_encoding_flush(&state, "", 0, out.data() + size);
    out.resize(size);
    decoded = std::move(out);
  }
  if (part.type != "text") return decoded;
  std::string charset;
  for (const auto& [name, value] : part.parameters)
    if (is_same_name(name, "charset")) charset = value;
  return to_utf8(decoded, charset);
}

std::vector<MailAddress> parse_addresses(const std::string& value) {
  start_gmime();
  std::vector<MailAddress> found;
  bool is_readable = std::count(value.begin(), value.end(), ':') <= most_colons;
  Owned<InternetAddressList> list(is_readable ? internet_address_list_parse(nullptr, with_regular_addresses(with_regular_words(value)).c_str())
                                              : nullptr);
  add_addresses(list.get(), 0, found);
  // "MAILER DAEMON <>" and the like name nobody that could be written to, but say who wrote.
  std::string name = decode_header_text(std::string(trimmed(value.substr(0, std::min(value.find('<'), longest_name)))));
  if (found.empty() && !name.empty()) found.push_back({name, "MISSING_MAILBOX", "MISSING_DOMAIN"});
  return found;
}

}  // namespace holdfast::proxy
