// The text of one generation, as its tokens come in.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace nn {

// Text turns tokens' bytes into text that may be shown: always whole UTF-8 characters,
// and nothing of a stop string, not even its beginning.
class Text {
public:
  Text() = default;
  explicit Text(std::vector<std::string> stops);

  // push takes one more token's bytes and returns what may be shown now.
  std::string push(std::string_view bytes);

  // finish returns what was still held back.
  std::string finish();

  // Was a stop string found? It and all that followed is gone.
  bool stopped() const { return found; }

private:
  size_t releasable() const;

  std::vector<std::string> stops;
  std::string held;
  bool found = false;
};

// valid_utf8 replaces what is not UTF-8 by U+FFFD.
std::string valid_utf8(std::string_view bytes);

} // namespace nn
