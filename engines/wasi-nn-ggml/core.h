// The plug-in without WasmEdge: graphs (models) and contexts (what runs on them), on
// llama.h alone. Nothing here is safe to be called from two threads at once.
#pragma once

#include <llama.h>

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "options.h"
#include "text.h"

namespace nn {

// The numbers of the wasmedge-wasi-nn crate's BackendError.
enum class Error : uint32_t {
  none = 0,
  invalid_argument = 1,
  invalid_encoding = 2,
  missing_memory = 3,
  busy = 4,
  runtime_error = 5,
  unsupported_operation = 6,
  too_large = 7,
  not_found = 8,
  end_of_sequence = 100,
  context_full = 101,
  prompt_too_long = 102,
  model_not_found = 103,
};

// say writes one line to stderr. It never gets a prompt or an answer.
void say(const std::string &line);

// available_cpus is how many CPUs this process may really use: affinity and cgroup quota.
uint32_t available_cpus();

template <auto free> struct Free {
  template <typename T> void operator()(T *pointer) const { free(pointer); }
};
using Model = std::unique_ptr<llama_model, Free<llama_model_free>>;
using LlamaContext = std::unique_ptr<llama_context, Free<llama_free>>;
using Sampler = std::unique_ptr<llama_sampler, Free<llama_sampler_free>>;

class Context;

// Shape is what a llama_context is made for.
struct Shape {
  uint32_t context, batch, ubatch, parallel;
  bool embedding;
  bool operator==(const Shape &other) const {
    return context == other.context && batch == other.batch && ubatch == other.ubatch && parallel == other.parallel && embedding == other.embedding;
  }
};

// Decoder is a llama_context with a slot (a sequence of its KV cache) for each of
// several contexts, whose next tokens it computes together.
class Decoder {
public:
  // open returns null if llama.cpp could not make one.
  static std::unique_ptr<Decoder> open(llama_model *model, const Shape &shape, uint32_t threads);
  ~Decoder();
  Decoder(const Decoder &) = delete;
  Decoder &operator=(const Decoder &) = delete;

  // claim gives owner a free slot: its number, or -1.
  int32_t claim(Context *owner);
  void release(int32_t slot);
  bool unused() const;

  // keep_common removes from the slot's cache what differs from tokens, and returns how many stay.
  size_t keep_common(int32_t slot, const std::vector<llama_token> &tokens);

  // prefill puts tokens from the at-th on into the slot's cache, most of them at once (0: all), and gives where the logits
  // after the last are. It says busy when there are more to come.
  Error prefill(int32_t slot, const std::vector<llama_token> &tokens, size_t &at, uint32_t most, int32_t &logits);

  // step computes the next token of every context that waits for one.
  Error step();

  // embed gives the embedding of tokens.
  Error embed(const std::vector<llama_token> &tokens, std::vector<float> &into);

  void set_threads(uint32_t threads);
  uint32_t window() const { return tokens_a_slot; }
  llama_context *llama() const { return context.get(); }

  const Shape shape;

private:
  struct Slot {
    Context *owner = nullptr;
    std::vector<llama_token> cached; // what the KV cache holds of this sequence
  };

  Decoder(LlamaContext opened, const Shape &shape, int32_t window_of_attention);
  void add(llama_token token, llama_pos position, int32_t slot, bool logits);
  Error decode();

  LlamaContext context;
  llama_batch batch;
  uint32_t tokens_a_slot;
  int32_t sliding_window;
  std::vector<Slot> slots;
};

// Graph is a loaded model.
class Graph {
public:
  // load loads the model at path, for the CPU alone if told so. json may be empty.
  static Error load(const std::string &path, std::string_view json, bool cpu, std::shared_ptr<Graph> &into);
  // load_bytes loads the model that these bytes are.
  static Error load_bytes(std::string_view bytes, std::string_view json, bool cpu, std::shared_ptr<Graph> &into);

  const llama_vocab *vocab() const { return llama_model_get_vocab(model.get()); }
  llama_model *llama() const { return model.get(); }

  // decoder gives context a slot of a decoder that has the shape the options ask for.
  Error decoder(Context *context, const Options &options, Decoder *&decoder, int32_t &slot);
  // drop removes a decoder nobody uses any more.
  void drop(Decoder *decoder);

  const Options options;

private:
  Graph(std::shared_ptr<llama_model> model, Options options) : options(std::move(options)), model(std::move(model)) {}
  Shape shape(const Options &options) const;

  std::shared_ptr<llama_model> model; // shared by graphs of the same file
  std::vector<std::unique_ptr<Decoder>> decoders;
};

// Context is an execution context: a prompt, and what the model makes of it.
class Context {
public:
  static Error open(std::shared_ptr<Graph> graph, std::unique_ptr<Context> &into);
  ~Context();
  Context(const Context &) = delete;
  Context &operator=(const Context &) = delete;

  // set_input sets the prompt (index 0) or changes options (index 1). A generation that
  // has begun goes on with what it began with.
  Error set_input(uint32_t index, std::string_view data);

  // compute makes the whole answer, or the embedding, of the prompt.
  Error compute();
  // compute_single makes one more token, whose text may be empty. After the last it gives
  // why there are no more: end_of_sequence, context_full. It gives busy where the prompt is
  // computed in parts and there are more.
  Error compute_single();
  // fini_single ends a generation, wherever it is. The next begins with the prompt again.
  Error fini_single();

  // output gives what was made so far (index 0) or what is known of it (index 1).
  Error output(uint32_t index, std::string &into) const;
  // output_single gives the last token's text instead of all, and (index 2) its probability.
  Error output_single(uint32_t index, std::string &into) const;

private:
  friend class Decoder;
  enum class State { idle, filling, generating, ended };

  Context(std::shared_ptr<Graph> owner) : graph(std::move(owner)), options(graph->options) {}
  Error reshape(const Options &changed);
  void leave();
  Error set_prompt(std::string_view text);
  Error begin();
  Error fill();
  bool make_sampler();
  void sample(int32_t logits);
  std::string probability(const float *logits) const;
  void show(std::string piece);
  void end(Error how, const char *why);
  Error embed();
  std::string describe() const;

  // waits says whether Decoder::step is to compute another token.
  bool waits() const { return state == State::generating && given && !ready; }

  std::shared_ptr<Graph> graph;
  Options options;
  Decoder *decoder = nullptr; // of graph
  int32_t slot = -1;

  std::vector<llama_token> prompt;
  bool has_prompt = false;

  std::vector<llama_token> filling; // the prompt that is being computed
  size_t filled = 0;                // how much of it is in the cache

  State state = State::idle;
  Error ending = Error::none; // what compute_single says once state is ended
  const char *finish_reason = "";
  Sampler sampler;
  Text text;
  int32_t predict = -1;
  llama_token token = LLAMA_TOKEN_NULL; // the last that was sampled
  bool ready = false;                   // it was not given out yet
  bool given = false;                   // it was, and is not in the cache yet
  uint64_t generated = 0;
  std::string answer, last;
  std::string next_probability, last_probability; // JSON; of the token that was sampled, and of the last given out
};

} // namespace nn
