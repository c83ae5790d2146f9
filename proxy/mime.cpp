#include "proxy/mime.h"

#include <gmime/gmime.h>

#include <algorithm>
#include <memory>

namespace holdfast::proxy {
namespace {

constexpr int deepest = 50;
constexpr std::size_t most_parts = 10'000;

/// GMime has one global state, set up once.
void start_gmime() {
  static const bool is_started = (g_mime_init(), true);
  (void)is_started;
}

struct Free {
  void operator()(void* object) const {
    if (object) g_object_unref(object);
  }
};
template <class T>
using Owned = std::unique_ptr<T, Free>;

std::string text_of(const char* text) {
  return text ? text : "";
}

std::string lower(std::string text) {
  for (char& c : text) c = static_cast<char>(c >= 'A' && c <= 'Z' ? c + 32 : c);
  return text;
}

std::string trimmed(const std::string& text) {
  std::size_t begin = text.find_first_not_of(" \t"), end = text.find_last_not_of(" \t");
  return begin == std::string::npos ? "" : text.substr(begin, end - begin + 1);
}

/// So far it is an encoded word in base64, and its text ("=?charset?b?text", RFC 2047).
bool is_base64_word(std::string_view text) {
  std::size_t mark = text.rfind('?');
  return mark != std::string_view::npos && mark >= 2 && (text[mark - 1] == 'b' || text[mark - 1] == 'B') && text[mark - 2] == '?';
}

/// GMime decodes neighbouring encoded words of one charset as if they were one, and loses all that stands behind the first
/// that is padded ("...=?= =?..."). An empty word of the other encoding between them keeps them apart.
std::string with_words_apart(std::string_view value) {
  constexpr std::string_view padded_end = "=?=", begin = "=?", blanks = " \t\r\n";
  std::string out;
  for (std::size_t end; (end = value.find(padded_end)) != std::string_view::npos;) {
    bool is_word = is_base64_word(value.substr(0, end));
    out += value.substr(0, end + padded_end.size());
    value.remove_prefix(end + padded_end.size());
    std::size_t next = value.find_first_not_of(blanks);
    bool is_followed = is_word && next != std::string_view::npos && value.substr(next).starts_with(begin);
    if (is_followed) out += " =?utf-8?q?" "?= ";
  }
  out += value;
  return out;
}

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
    Owned<GMimeContentType> type(g_mime_content_type_parse(nullptr, with_words_apart(value).c_str()));
    if (type) {
      part.type = lower(text_of(g_mime_content_type_get_media_type(type.get())));
      part.subtype = lower(text_of(g_mime_content_type_get_media_subtype(type.get())));
      part.parameters = parameters_of(g_mime_content_type_get_parameters(type.get()));
    }
    if (part.type.empty() || part.subtype.empty()) part.type = "text", part.subtype = "plain";
  }
  if (std::string value = field_of(header, "Content-Disposition"); !value.empty()) {
    Owned<GMimeContentDisposition> disposition(g_mime_content_disposition_parse(nullptr, with_words_apart(value).c_str()));
    if (disposition) {
      part.disposition = lower(text_of(g_mime_content_disposition_get_disposition(disposition.get())));
      part.disposition_parameters =
          parameters_of(g_mime_content_disposition_get_parameters(disposition.get()));
    }
  }
  part.id = trimmed(field_of(header, "Content-ID"));
  part.description = trimmed(field_of(header, "Content-Description"));
  part.md5 = trimmed(field_of(header, "Content-MD5"));
  part.language = trimmed(field_of(header, "Content-Language"));
  part.location = trimmed(field_of(header, "Content-Location"));
  if (std::string value = trimmed(field_of(header, "Content-Transfer-Encoding")); !value.empty())
    part.encoding = lower(value);
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

struct Parser {
  std::string_view message;
  std::size_t parts = 0;

  MimePart parse(Range range, int depth, bool in_digest) {
    MimePart part;
    ++parts;
    Range header = header_of(range.of(message));
    part.header = {range.begin, range.begin + header.end};
    part.body = {part.header.end, range.end};
    read_header(message, part, in_digest);
    if (depth >= deepest || parts >= most_parts) return part;
    if (part.type == "multipart") split(part, depth);
    // Without any part to be found it is shown as what it is then: text.
    if (part.type == "multipart" && part.children.empty()) part.type = "text", part.subtype = "plain", part.parameters.clear();
    if (part.type == "message" && part.subtype == "rfc822" &&
        (part.encoding == "7bit" || part.encoding == "8bit" || part.encoding == "binary"))
      part.children.push_back(parse(part.body, depth + 1, false));
    return part;
  }

  /// Whether the header is that of a multipart with this very delimiter.
  bool opens(const std::string& delimiter, Range header) {
    MimePart part;
    part.header = header;
    if (header.of(message).find(delimiter.substr(2)) == std::string_view::npos) return false;
    read_header(message, part, false);
    return part.type == "multipart" && boundary_of(part) == delimiter.substr(2);
  }

  /// RFC 2046 5.1.1: the line end before a boundary belongs to the boundary. Some mailers give a multipart the
  /// boundary of the one that holds it: up to its end it is the inner one's.
  void split(MimePart& part, int depth) {
    std::string delimiter = "--" + boundary_of(part);
    if (delimiter.size() == 2) return;
    constexpr std::size_t none = std::string_view::npos;
    std::size_t at = part.body.begin, begin = none;
    std::size_t inner_header = none;  // where the header that is being read begins
    std::size_t inner = 0;            // multiparts with the same boundary that are open in the part
    bool is_digest = part.subtype == "digest";
    auto end_part = [&](std::size_t end) {
      if (begin != none) part.children.push_back(parse({begin, std::max(begin, end)}, depth + 1, is_digest));
    };
    auto before_line_end = [&](std::size_t end) {
      if (end > begin && message[end - 1] == '\n') --end;
      if (end > begin && message[end - 1] == '\r') --end;
      return end;
    };
    while (at < part.body.end && parts < most_parts) {
      std::size_t end = message.find('\n', at);
      end = end == none || end >= part.body.end ? part.body.end : end + 1;
      std::string_view line = message.substr(at, end - at);
      if (line.starts_with(delimiter)) {
        std::string_view rest = line.substr(delimiter.size());
        bool is_last = rest.starts_with("--");
        if (is_last) rest.remove_prefix(2);
        if (rest.find_first_not_of(" \t\r\n") == none) {
          inner_header = is_last ? none : end;
          if (inner == 0) {
            end_part(before_line_end(at));
            if (is_last) return;
            begin = end;
          } else if (is_last) {
            --inner;
          }
        }
      } else if (inner_header != none && line.find_first_not_of("\r\n") == none) {
        inner += opens(delimiter, {inner_header, end}) ? 1 : 0;
        inner_header = none;
      }
      at = end;
    }
    end_part(part.body.end);
  }
};

/// Text of an unknown or wrong charset is taken as Windows-1252, in which every byte is something.
std::string to_utf8(const std::string& text, const std::string& charset) {
  bool is_utf8 = charset.empty() || is_same_name(charset, "utf-8") || is_same_name(charset, "us-ascii");
  if (is_utf8 && g_utf8_validate(text.data(), static_cast<gssize>(text.size()), nullptr)) return text;
  for (const char* name : {is_utf8 ? "windows-1252" : charset.c_str(), "windows-1252", "iso-8859-1"}) {
    gsize size = 0;
    char* converted =
        g_convert(text.data(), static_cast<gssize>(text.size()), "UTF-8", name, nullptr, &size, nullptr);
    if (!converted) continue;
    std::string done(converted, size);
    g_free(converted);
    return done;
  }
  return text;
}

}  // namespace

bool is_same_name(std::string_view a, std::string_view b) {
  return a.size() == b.size() && std::equal(a.begin(), a.end(), b.begin(), [](char x, char y) {
           return g_ascii_tolower(x) == g_ascii_tolower(y);
         });
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
  each_field(header, [&](std::string_view field_name, std::string_view field) {
    if (is_found || !is_same_name(field_name, name)) return;
    is_found = true;
    value = unfolded(field);
  });
  return value;
}

std::string address_field_of(std::string_view header, std::string_view name) {
  std::string all;
  each_field(header, [&](std::string_view field_name, std::string_view field) {
    if (!is_same_name(field_name, name)) return;
    std::string value = unfolded(field);
    if (!all.empty() && !value.empty()) all += ", ";
    all += value;
  });
  return all;
}

MimePart parse_mime(std::string_view message) {
  start_gmime();
  Parser parser{message};
  return parser.parse({0, message.size()}, 0, false);
}

std::string decode_header_text(const std::string& raw) {
  start_gmime();
  char* decoded = g_mime_utils_header_decode_text(nullptr, with_words_apart(raw).c_str());
  char* valid = g_utf8_make_valid(decoded ? decoded : raw.c_str(), -1);
  std::string text = valid;
  for (char* one : {decoded, valid}) g_free(one);
  return text;
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
  Owned<InternetAddressList> list(internet_address_list_parse(nullptr, with_words_apart(value).c_str()));
  auto add = [&](InternetAddressList* addresses, auto&& self, int depth) -> void {
    for (int i = 0, count = addresses ? internet_address_list_length(addresses) : 0; i < count; ++i) {
      InternetAddress* one = internet_address_list_get_address(addresses, i);
      if (INTERNET_ADDRESS_IS_GROUP(one)) {
        found.push_back({"", text_of(internet_address_get_name(one)), ""});
        if (depth < 3) self(internet_address_group_get_members(INTERNET_ADDRESS_GROUP(one)), self, depth + 1);
        found.push_back({});
      } else if (INTERNET_ADDRESS_IS_MAILBOX(one)) {
        std::string address = text_of(internet_address_mailbox_get_addr(INTERNET_ADDRESS_MAILBOX(one)));
        std::size_t at = address.rfind('@');
        std::string host = at == std::string::npos ? "" : address.substr(at + 1);
        found.push_back({text_of(internet_address_get_name(one)), without_quotes(address.substr(0, at)),
                         host.empty() ? "MISSING_DOMAIN" : host});
      }
    }
  };
  add(list.get(), add, 0);
  // "MAILER DAEMON <>" and the like name nobody that could be written to, but say who wrote.
  std::string name = decode_header_text(trimmed(value.substr(0, value.find('<'))));
  if (found.empty() && !name.empty()) found.push_back({name, "MISSING_MAILBOX", "MISSING_DOMAIN"});
  return found;
}

}  // namespace holdfast::proxy
