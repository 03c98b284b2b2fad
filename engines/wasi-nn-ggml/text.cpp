#include "text.h"

#include <algorithm>

namespace nn {
namespace {

bool continues(char byte) { return (static_cast<unsigned char>(byte) & 0xC0U) == 0x80U; }

// announced is the length of the character that begins with this byte, 0 if none does.
size_t announced(char byte) {
  const auto b = static_cast<unsigned char>(byte);
  if (b < 0x80U) {
    return 1;
  }
  if (b >= 0xC2U && b <= 0xDFU) {
    return 2;
  }
  if (b >= 0xE0U && b <= 0xEFU) {
    return 3;
  }
  return b >= 0xF0U && b <= 0xF4U ? 4 : 0;
}

// character is the length of the valid character at the beginning of bytes, 0 if there is none.
size_t character(std::string_view bytes) {
  const size_t length = announced(bytes[0]);
  if (length == 0 || bytes.size() < length || !std::all_of(bytes.begin() + 1, bytes.begin() + static_cast<long>(length), continues)) {
    return 0;
  }
  if (length > 2) { // overlong ones, surrogates, beyond U+10FFFF
    const auto first = static_cast<unsigned char>(bytes[0]);
    const auto second = static_cast<unsigned char>(bytes[1]);
    if ((first == 0xE0U && second < 0xA0U) || (first == 0xEDU && second > 0x9FU) || (first == 0xF0U && second < 0x90U) ||
        (first == 0xF4U && second > 0x8FU)) {
      return 0;
    }
  }
  return length;
}

// unfinished is how many of the last bytes are the beginning of a character.
size_t unfinished(std::string_view bytes) {
  for (size_t back = 1; back <= std::min<size_t>(3, bytes.size()); back++) {
    const char byte = bytes[bytes.size() - back];
    if (!continues(byte)) {
      return announced(byte) > back ? back : 0;
    }
  }
  return 0;
}

} // namespace

std::string valid_utf8(std::string_view bytes) {
  std::string valid;
  valid.reserve(bytes.size());
  while (!bytes.empty()) {
    size_t length = character(bytes);
    if (length == 0) {
      valid += "\xEF\xBF\xBD";
      length = 1;
    } else {
      valid += bytes.substr(0, length);
    }
    bytes.remove_prefix(length);
  }
  return valid;
}

Text::Text(std::vector<std::string> strings) : stops(std::move(strings)) {
  stops.erase(std::remove(stops.begin(), stops.end(), std::string()), stops.end());
}

// releasable is how many bytes of held can be part of no stop string, and end with a character.
size_t Text::releasable() const {
  size_t keep = 0;
  for (const std::string &stop : stops) {
    for (size_t n = std::min(stop.size() - 1, held.size()); n > keep; n--) {
      if (held.compare(held.size() - n, n, stop, 0, n) == 0) {
        keep = n;
      }
    }
  }
  const size_t free = held.size() - keep;
  return free - unfinished(std::string_view(held).substr(0, free));
}

std::string Text::push(std::string_view bytes) {
  if (found) {
    return "";
  }
  held += bytes;
  size_t first = std::string::npos;
  for (const std::string &stop : stops) {
    first = std::min(first, held.find(stop));
  }
  if (first != std::string::npos) {
    found = true;
    held.resize(first);
    return finish();
  }
  const size_t n = releasable();
  std::string shown = valid_utf8(std::string_view(held).substr(0, n));
  held.erase(0, n);
  return shown;
}

std::string Text::finish() {
  std::string shown = valid_utf8(held);
  held.clear();
  return shown;
}

} // namespace nn
