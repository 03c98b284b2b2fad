// The options a guest gives as JSON: with load_by_name_with_config, and later by
// set_input at index 1. Their names are those of the llama-core crate's GgmlMetadata.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace nn {

struct Options {
  bool log = false;
  bool debug_log = false;
  bool stream_stdout = false;
  bool embedding = false;

  // Of the model; what is set after it was loaded has no effect.
  int32_t gpu_layers = -1; // all
  int32_t main_gpu = 0;
  std::string split_mode = "layer";
  std::vector<float> tensor_split;
  bool mmap = true;

  // Of the context.
  uint32_t context = 4096; // 0: what the model was trained with
  uint32_t batch = 2048;
  uint32_t ubatch = 512;
  uint32_t threads = 2;
  uint32_t prefill = 0;  // ours: tokens of a prompt that are computed in one call; 0: all
  uint32_t parallel = 1; // ours: execution contexts whose tokens are computed together

  // Of one generation.
  int32_t predict = -1; // negative: until the context is full
  float temperature = 0.8F;
  float top_p = 0.9F;
  float min_p = 0.05F;
  int32_t top_k = 40;
  float repeat_penalty = 1.0F;
  float presence_penalty = 0.0F;
  float frequency_penalty = 0.0F;
  int32_t penalty_last = 64;
  int32_t logprobs = -1;      // ours: how many other tokens to tell beside each; negative: nothing is told
  uint32_t seed = 0xFFFFFFFF; // a different one each time
  std::string grammar;
  std::vector<std::string> stop; // reverse-prompt is one more
  std::string reverse_prompt;
};

// parse changes the options that json names. It returns why it could not, naming the
// option, or nothing; then no option was changed.
std::string parse(std::string_view json, Options &options);

// quoted makes a JSON string of text, whatever bytes are in it.
std::string quoted(std::string_view text);

} // namespace nn
