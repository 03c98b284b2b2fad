#include "options.h"

#include <cmath>
#include <cstdlib>
#include <limits>
#include <nlohmann/json.hpp>

namespace nn {
namespace {

using nlohmann::json;

// Reader takes options out of an object. It remembers the first that was wrong.
class Reader {
public:
  explicit Reader(const json &object) : object(object) {}

  void take(const char *key, bool &into) {
    if (const json *value = find(key)) {
      if (value->is_boolean()) {
        into = value->get<bool>();
      } else {
        refuse(key, "true or false");
      }
    }
  }

  void take(const char *key, std::string &into) {
    if (const json *value = find(key)) {
      if (value->is_string()) {
        into = value->get<std::string>();
      } else {
        refuse(key, "a string");
      }
    }
  }

  void take(const char *key, float &into, double least, double most) {
    if (const json *value = find(key)) {
      const double number = value->is_number() ? value->get<double>() : std::nan("");
      if (number >= least && number <= most) {
        into = static_cast<float>(number);
      } else {
        refuse(key, "a number from " + text(least) + " to " + text(most));
      }
    }
  }

  template <typename Integer> void take(const char *key, Integer &into, int64_t least, int64_t most) {
    if (const json *value = find(key)) {
      // A number over int64's would turn negative by get<int64_t>.
      const bool fits = value->is_number_integer() && (!value->is_number_unsigned() || value->get<uint64_t>() <= INT64_MAX);
      if (fits && value->get<int64_t>() >= least && value->get<int64_t>() <= most) {
        into = static_cast<Integer>(value->get<int64_t>());
      } else {
        refuse(key, "a whole number from " + std::to_string(least) + " to " + std::to_string(most));
      }
    }
  }

  void take(const char *key, std::vector<std::string> &into) {
    const json *value = find(key);
    if (value == nullptr) {
      return;
    }
    std::vector<std::string> strings;
    bool all_strings = value->is_array();
    if (all_strings) {
      for (const json &one : *value) {
        all_strings = all_strings && one.is_string();
        strings.push_back(one.is_string() ? one.get<std::string>() : "");
      }
    }
    if (all_strings) {
      into = std::move(strings);
    } else {
      refuse(key, "an array of strings");
    }
  }

  // forbid refuses an option that asks for something we do not have.
  void forbid(const char *key, const char *instead) {
    const json *value = find(key);
    if (value != nullptr && *value != json(false) && *value != json("")) {
      fail(std::string(key) + " is not supported" + instead);
    }
  }

  void refuse(const char *key, const std::string &wanted) { fail(std::string(key) + " must be " + wanted); }

  std::string error;

private:
  const json *find(const char *key) const {
    const auto found = object.find(key);
    return found == object.end() || found->is_null() ? nullptr : &*found;
  }

  void fail(const std::string &why) {
    if (error.empty()) {
      error = why;
    }
  }

  static std::string text(double number) { return json(number).dump(); }

  const json &object;
};

// split reads "3,2", the shares of the devices.
bool split(const std::string &text, std::vector<float> &into) {
  into.clear();
  const char *at = text.c_str();
  while (*at != '\0') {
    char *end = nullptr;
    const float share = std::strtof(at, &end);
    if (end == at || !std::isfinite(share) || share < 0 || (*end != '\0' && *end != ',')) {
      return false;
    }
    into.push_back(share);
    at = *end == ',' ? end + 1 : end;
  }
  return true;
}

} // namespace

std::string parse(std::string_view text, Options &options) {
  const json object = json::parse(text.begin(), text.end(), nullptr, /*allow_exceptions=*/false);
  if (!object.is_object()) {
    return "the metadata is not a JSON object";
  }

  constexpr int64_t most_tokens = 1 << 24;
  constexpr int64_t most_int = std::numeric_limits<int32_t>::max();
  Options read = options;
  std::string tensor_split;
  Reader reader(object);
  reader.take("enable-log", read.log);
  reader.take("enable-debug-log", read.debug_log);
  reader.take("stream-stdout", read.stream_stdout);
  reader.take("embedding", read.embedding);
  reader.take("n-gpu-layers", read.gpu_layers, -1, most_int);
  reader.take("main-gpu", read.main_gpu, 0, most_int);
  reader.take("split-mode", read.split_mode);
  reader.take("tensor-split", tensor_split);
  reader.take("use-mmap", read.mmap);
  reader.take("ctx-size", read.context, 0, most_tokens);
  reader.take("batch-size", read.batch, 1, most_tokens);
  reader.take("ubatch-size", read.ubatch, 1, most_tokens);
  reader.take("threads", read.threads, 1, 4096);
  reader.take("parallel", read.parallel, 1, 64);
  reader.take("prefill", read.prefill, 0, most_tokens);
  reader.take("logprobs", read.logprobs, -1, 100);
  reader.take("n-predict", read.predict, -2, most_int);
  reader.take("temp", read.temperature, 0, 100);
  reader.take("top-p", read.top_p, 0, 1);
  reader.take("min-p", read.min_p, 0, 1);
  reader.take("top-k", read.top_k, 0, most_int);
  reader.take("repeat-penalty", read.repeat_penalty, 0.01, 100);
  reader.take("presence-penalty", read.presence_penalty, -100, 100);
  reader.take("frequency-penalty", read.frequency_penalty, -100, 100);
  reader.take("repeat-last-n", read.penalty_last, 0, most_tokens);
  reader.take("seed", read.seed, 0, std::numeric_limits<uint32_t>::max());
  reader.take("grammar", read.grammar);
  reader.take("stop", read.stop);
  reader.take("reverse-prompt", read.reverse_prompt);
  reader.forbid("json_schema", "; give its grammar instead");
  reader.forbid("mmproj", ": this plug-in has no eyes");
  reader.forbid("image", ": this plug-in has no eyes");
  reader.forbid("tts", ": this plug-in does not speak");
  if (read.split_mode != "none" && read.split_mode != "layer" && read.split_mode != "row") {
    reader.refuse("split-mode", "none, layer or row");
  }
  if (!tensor_split.empty() && !split(tensor_split, read.tensor_split)) {
    reader.refuse("tensor-split", "numbers with commas between them");
  }
  if (reader.error.empty()) {
    options = std::move(read);
  }
  return reader.error;
}

std::string quoted(std::string_view text) { return json(text).dump(-1, ' ', false, json::error_handler_t::replace); }

} // namespace nn
