#include "core.h"

#include <dlfcn.h>
#include <sched.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <memory>
#include <numeric>

namespace nn {
namespace {

// What llama.cpp logs goes to stderr if a guest asked for it. Its first complaint since
// this was last cleared is kept for our own message: those that follow only repeat it.
struct Log {
  ggml_log_level least = GGML_LOG_LEVEL_NONE; // NONE: nothing
  ggml_log_level level = GGML_LOG_LEVEL_NONE; // of the line that is being written
  bool keeping = false;                       // it is the complaint
  std::string complaint;

  static void write(ggml_log_level level, const char *text, void *data) {
    Log &log = *static_cast<Log *>(data);
    if (level != GGML_LOG_LEVEL_CONT) {
      log.level = level;
      log.keeping = level == GGML_LOG_LEVEL_ERROR && log.complaint.empty();
    }
    if (log.keeping) {
      log.complaint += text;
    }
    if (log.least != GGML_LOG_LEVEL_NONE && log.level >= log.least) {
      std::fputs(text, stderr);
    }
  }

  void follow(const Options &options) {
    if (options.debug_log) {
      least = GGML_LOG_LEVEL_DEBUG;
    } else if (options.log && least != GGML_LOG_LEVEL_DEBUG) {
      least = GGML_LOG_LEVEL_INFO;
    }
  }

  // reason gives the complaint as the end of a sentence.
  std::string reason() const {
    const std::string line = complaint.substr(0, complaint.find_last_not_of(" \n") + 1);
    return line.empty() ? "" : ": " + line;
  }
};

// Never destroyed: llama.cpp may have something to say at the very end.
Log &logs() {
  static Log &log = *new Log;
  return log;
}

// starts_llama loads llama.cpp's plug-ins for this processor, which lie beside its
// library where that did not come with the system.
void starts_llama() {
  static const bool started = [] {
    llama_log_set(Log::write, &logs());
    Dl_info info{};
    if (dladdr(reinterpret_cast<void *>(&ggml_backend_load_all_from_path), &info) != 0 && info.dli_fname != nullptr) {
      const std::string path = info.dli_fname;
      ggml_backend_load_all_from_path(path.substr(0, path.find_last_of('/') + 1).c_str());
    }
    if (ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU) == nullptr) {
      ggml_backend_load_all();
    }
    llama_backend_init();
    return true;
  }();
  static_cast<void>(started);
}

// quota reads how many CPUs the cgroup at path may use, 0 if it says nothing.
double quota(const std::string &path) {
  std::ifstream file("/sys/fs/cgroup" + path + "/cpu.max");
  std::string most;
  double period = 0;
  if (!(file >> most >> period) || most == "max" || period <= 0) {
    return 0;
  }
  return std::strtod(most.c_str(), nullptr) / period;
}

std::vector<llama_token> tokenize(const llama_vocab *vocab, std::string_view text) {
  std::vector<llama_token> tokens(text.size() + 2); // nearly always enough
  const auto run = [&] {
    return llama_tokenize(vocab, text.data(), static_cast<int32_t>(text.size()), tokens.data(), static_cast<int32_t>(tokens.size()),
                          /*add_special=*/true, /*parse_special=*/true);
  };
  int32_t n = run();
  if (n < 0 && n != INT32_MIN) {
    tokens.resize(static_cast<size_t>(-n));
    n = run();
  }
  tokens.resize(static_cast<size_t>(std::max(n, 0)));
  // Templates begin with the token that was just put there as well.
  if (tokens.size() > 1 && llama_vocab_get_add_bos(vocab) && tokens[0] == tokens[1] && tokens[0] == llama_vocab_bos(vocab)) {
    tokens.erase(tokens.begin());
  }
  return tokens;
}

std::string piece_of(const llama_vocab *vocab, llama_token token) {
  std::string piece(64, '\0');
  int32_t n = llama_token_to_piece(vocab, token, piece.data(), static_cast<int32_t>(piece.size()), 0, /*special=*/false);
  if (n < 0) {
    piece.resize(static_cast<size_t>(-n));
    n = llama_token_to_piece(vocab, token, piece.data(), static_cast<int32_t>(piece.size()), 0, /*special=*/false);
  }
  piece.resize(static_cast<size_t>(std::max(n, 0)));
  return piece;
}

// build_number makes one number of llama.cpp's version, as the guest wants one.
uint64_t build_number() {
  uint64_t number = 0;
  uint64_t part = 0;
  for (const char *at = llama_version(); *at != '\0'; at++) {
    if (*at >= '0' && *at <= '9' && part < 1000000) {
      part = part * 10 + static_cast<uint64_t>(*at - '0');
    } else if (*at == '.') {
      number = (number + part) * 100;
      part = 0;
    }
  }
  return number + part;
}

llama_model_params model_params(const Options &options, std::vector<float> &shares) {
  llama_model_params params = llama_model_default_params();
  params.n_gpu_layers = options.gpu_layers;
  params.main_gpu = options.main_gpu;
  params.split_mode = options.split_mode == "none"  ? LLAMA_SPLIT_MODE_NONE
                      : options.split_mode == "row" ? LLAMA_SPLIT_MODE_ROW
                                                    : LLAMA_SPLIT_MODE_LAYER;
  if (!options.mmap) {
    params.load_mode = LLAMA_LOAD_MODE_NONE;
  }
  if (!options.tensor_split.empty()) {
    shares = options.tensor_split;
    shares.resize(std::max(shares.size(), llama_max_devices()), 0.0F);
    params.tensor_split = shares.data();
  }
  return params;
}

// open_model returns null after saying why, once.
Model open_model(const std::string &path, const std::string &name, const Options &options) {
  logs().follow(options);
  starts_llama();
  logs().complaint.clear();
  std::vector<float> shares;
  Model model(llama_model_load_from_file(path.c_str(), model_params(options, shares)));
  if (!model) {
    say("model " + name + " could not be loaded" + logs().reason());
  } else if (llama_model_has_encoder(model.get())) {
    say("model " + name + " has an encoder: such models are not supported");
    model.reset();
  }
  return model;
}

Error read_options(std::string_view json, Options &options) {
  if (json.empty()) {
    return Error::none;
  }
  const std::string wrong = parse(json, options);
  if (!wrong.empty()) {
    say(wrong);
    return wrong.find("not supported") == std::string::npos ? Error::invalid_argument : Error::unsupported_operation;
  }
  return Error::none;
}

} // namespace

void say(const std::string &line) { std::fprintf(stderr, "wasi-nn-ggml: %s\n", line.c_str()); }

uint32_t available_cpus() {
  double cpus = static_cast<double>(std::max(1L, sysconf(_SC_NPROCESSORS_ONLN)));
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof set, &set) == 0) {
    cpus = CPU_COUNT(&set);
  }
  std::ifstream groups("/proc/self/cgroup");
  for (std::string line; std::getline(groups, line);) {
    if (line.rfind("0::", 0) != 0) {
      continue;
    }
    // A limit of a parent is ours as well.
    std::string path = line.substr(3);
    while (true) {
      const double most = quota(path == "/" ? "" : path);
      cpus = most > 0 ? std::min(cpus, most) : cpus;
      const size_t slash = path.find_last_of('/');
      if (path.empty() || slash == std::string::npos) {
        break;
      }
      path.resize(slash);
    }
  }
  return std::max(1U, static_cast<uint32_t>(cpus));
}

// ---- Decoder

Decoder::Decoder(LlamaContext opened, const Shape &wanted, int32_t window_of_attention)
    : shape(wanted), context(std::move(opened)), batch(llama_batch_init(static_cast<int32_t>(llama_n_batch(context.get())), 0, 1)),
      // llama.cpp rounds up; the guest was promised what it asked for.
      tokens_a_slot(std::min(wanted.context, llama_n_ctx_seq(context.get()))), sliding_window(window_of_attention), slots(wanted.parallel) {}

Decoder::~Decoder() { llama_batch_free(batch); }

std::unique_ptr<Decoder> Decoder::open(llama_model *model, const Shape &shape, uint32_t threads) {
  llama_context_params params = llama_context_default_params();
  params.n_ctx = shape.context * shape.parallel;
  params.n_seq_max = shape.parallel;
  params.n_batch = std::max(shape.batch, shape.parallel);
  params.n_ubatch = std::min(shape.ubatch, params.n_batch);
  if (!shape.embedding) {
    params.n_outputs_max = shape.parallel; // one a slot, not one a token: room for logits is dear
  }
  params.n_threads = params.n_threads_batch = static_cast<int32_t>(std::min(threads, available_cpus()));
  params.embeddings = shape.embedding;
  params.swa_full = false;
  params.no_perf = true;
  LlamaContext context(llama_init_from_model(model, params));
  if (context && shape.embedding && llama_pooling_type(context.get()) == LLAMA_POOLING_TYPE_NONE) {
    // A model for chat says nothing of how to make one vector of many.
    context.reset();
    params.pooling_type = LLAMA_POOLING_TYPE_MEAN;
    context.reset(llama_init_from_model(model, params));
  }
  if (!context) {
    return nullptr;
  }
  return std::unique_ptr<Decoder>(new Decoder(std::move(context), shape, llama_model_n_swa(model)));
}

int32_t Decoder::claim(Context *owner) {
  for (size_t i = 0; i < slots.size(); i++) {
    if (slots[i].owner == nullptr) {
      slots[i].owner = owner;
      return static_cast<int32_t>(i);
    }
  }
  return -1;
}

void Decoder::release(int32_t slot) {
  Slot &left = slots[static_cast<size_t>(slot)];
  left.owner = nullptr;
  left.cached.clear();
  llama_memory_seq_rm(llama_get_memory(context.get()), slot, -1, -1);
}

bool Decoder::unused() const {
  return std::all_of(slots.begin(), slots.end(), [](const Slot &slot) { return slot.owner == nullptr; });
}

void Decoder::set_threads(uint32_t threads) {
  const auto n = static_cast<int32_t>(std::min(threads, available_cpus()));
  llama_set_n_threads(context.get(), n, n);
}

void Decoder::add(llama_token token, llama_pos position, int32_t slot, bool logits) {
  const int32_t i = batch.n_tokens++;
  batch.token[i] = token;
  batch.pos[i] = position;
  batch.n_seq_id[i] = 1;
  batch.seq_id[i][0] = slot;
  batch.logits[i] = static_cast<int8_t>(logits);
}

Error Decoder::decode() {
  const int32_t failed = llama_decode(context.get(), batch);
  if (failed != 0) {
    say("llama_decode failed with " + std::to_string(failed) + logs().reason());
    return Error::runtime_error;
  }
  return Error::none;
}

// keep_common removes from the slot's cache what differs from tokens, and returns how many stay.
// The last token is always computed: its logits are not kept.
size_t Decoder::keep_common(int32_t slot, const std::vector<llama_token> &tokens) {
  std::vector<llama_token> &cached = slots[static_cast<size_t>(slot)].cached;
  const auto differs = std::mismatch(cached.begin(), cached.end(), tokens.begin(), tokens.end());
  auto common = std::min(static_cast<size_t>(differs.first - cached.begin()), tokens.size() - 1);

  const llama_memory_t memory = llama_get_memory(context.get());
  const auto at = static_cast<llama_pos>(common);
  // A sliding window has forgotten what lies before it.
  const bool forgotten = sliding_window > 0 && llama_memory_seq_pos_min(memory, slot) > std::max(0, at - sliding_window);
  if (common == 0 || forgotten || !llama_memory_seq_rm(memory, slot, at, -1)) {
    llama_memory_seq_rm(memory, slot, -1, -1);
    common = 0;
  }
  cached.resize(common);
  return common;
}

Error Decoder::prefill(int32_t slot, const std::vector<llama_token> &tokens, size_t &at, uint32_t most, int32_t &logits) {
  std::vector<llama_token> &cached = slots[static_cast<size_t>(slot)].cached;
  const size_t in_batch = llama_n_batch(context.get());
  const size_t stop = most == 0 ? tokens.size() : std::min(tokens.size(), at + most);
  while (at < stop) {
    const size_t end = std::min(stop, at + in_batch);
    batch.n_tokens = 0;
    for (size_t i = at; i < end; i++) {
      add(tokens[i], static_cast<llama_pos>(i), slot, i + 1 == tokens.size());
    }
    const Error error = decode();
    if (error != Error::none) {
      cached.clear();
      llama_memory_seq_rm(llama_get_memory(context.get()), slot, -1, -1);
      return error;
    }
    cached.insert(cached.end(), tokens.begin() + static_cast<long>(at), tokens.begin() + static_cast<long>(end));
    at = end;
  }
  logits = batch.n_tokens - 1;
  return at < tokens.size() ? Error::busy : Error::none;
}

Error Decoder::step() {
  batch.n_tokens = 0;
  std::vector<Slot *> in_batch;
  for (size_t i = 0; i < slots.size(); i++) {
    Slot &slot = slots[i];
    if (slot.owner == nullptr || !slot.owner->waits()) {
      continue;
    }
    if (slot.cached.size() >= tokens_a_slot) {
      slot.owner->end(Error::context_full, "context");
      continue;
    }
    add(slot.owner->token, static_cast<llama_pos>(slot.cached.size()), static_cast<int32_t>(i), true);
    in_batch.push_back(&slot);
  }
  if (in_batch.empty()) {
    return Error::none;
  }
  const Error error = decode();
  for (size_t i = 0; i < in_batch.size(); i++) {
    Slot &slot = *in_batch[i];
    if (error != Error::none) {
      slot.owner->end(error, "error");
      // What is in the cache is not known any more.
      slot.cached.clear();
      llama_memory_seq_rm(llama_get_memory(context.get()), static_cast<llama_seq_id>(&slot - slots.data()), -1, -1);
      continue;
    }
    slot.cached.push_back(slot.owner->token);
    slot.owner->sample(static_cast<int32_t>(i));
  }
  return error;
}

Error Decoder::embed(const std::vector<llama_token> &tokens, std::vector<float> &into) {
  llama_memory_t memory = llama_get_memory(context.get()); // an encoder has none
  if (memory != nullptr) {
    llama_memory_clear(memory, true);
  }
  batch.n_tokens = 0;
  for (size_t i = 0; i < tokens.size(); i++) {
    add(tokens[i], static_cast<llama_pos>(i), 0, true);
  }
  const Error error = decode();
  if (error != Error::none) {
    return error;
  }
  const float *values = llama_get_embeddings_seq(context.get(), 0);
  if (values == nullptr) {
    say("the model gave no embedding");
    return Error::runtime_error;
  }
  into.assign(values, values + llama_model_n_embd_out(llama_get_model(context.get())));
  double sum = 0;
  for (const float value : into) {
    sum += static_cast<double>(value) * value;
  }
  if (!std::isfinite(sum)) {
    say("the embedding is not finite");
    return Error::runtime_error;
  }
  const double scale = sum > 0 ? 1 / std::sqrt(sum) : 0;
  for (float &value : into) {
    value = static_cast<float>(value * scale);
  }
  return Error::none;
}

// ---- Graph

Error Graph::load(const std::string &path, std::string_view json, bool cpu, std::shared_ptr<Graph> &into) {
  Options options;
  const Error error = read_options(json, options);
  if (error != Error::none) {
    return error;
  }
  if (cpu) {
    options.gpu_layers = 0;
  }
  if (access(path.c_str(), R_OK) != 0) {
    say("model " + path + ": " + std::strerror(errno));
    return Error::model_not_found;
  }
  // One file is in memory once, however many graphs there are of it.
  static std::map<std::string, std::weak_ptr<llama_model>> loaded;
  std::string key = path + '\0' + std::to_string(options.gpu_layers) + '\0' + std::to_string(options.main_gpu) + '\0' + options.split_mode +
                    (options.mmap ? "" : " copied");
  for (const float share : options.tensor_split) {
    key += ',' + std::to_string(share);
  }
  std::shared_ptr<llama_model> model = loaded[key].lock();
  if (!model) {
    model = open_model(path, path, options);
    loaded[key] = model;
  }
  if (!model) {
    return Error::runtime_error;
  }
  into.reset(new Graph(std::move(model), std::move(options)));
  return Error::none;
}

Error Graph::load_bytes(std::string_view bytes, std::string_view json, bool cpu, std::shared_ptr<Graph> &into) {
  Options options;
  const Error error = read_options(json, options);
  if (error != Error::none) {
    return error;
  }
  if (cpu) {
    options.gpu_layers = 0;
  }
  // A file without a name, in memory: llama.cpp reads a model from a file only.
  struct File {
    int number = memfd_create("model", MFD_CLOEXEC);
    ~File() {
      if (number >= 0) {
        close(number);
      }
    }
  } file;
  while (file.number >= 0 && !bytes.empty()) {
    const ssize_t n = write(file.number, bytes.data(), bytes.size());
    if (n <= 0) {
      break;
    }
    bytes.remove_prefix(static_cast<size_t>(n));
  }
  if (file.number < 0 || !bytes.empty()) {
    say(std::string("no memory for the model: ") + std::strerror(errno));
    return Error::too_large;
  }
  Model model = open_model("/proc/self/fd/" + std::to_string(file.number), "given as bytes", options);
  if (!model) {
    return Error::runtime_error;
  }
  into.reset(new Graph(std::move(model), std::move(options)));
  return Error::none;
}

Shape Graph::shape(const Options &wanted) const {
  Shape shape{};
  const auto trained = static_cast<uint32_t>(std::max(1, llama_model_n_ctx_train(llama())));
  shape.context = wanted.context == 0 ? trained : wanted.context;
  shape.embedding = wanted.embedding;
  if (wanted.embedding) {
    // A text is looked at as a whole, never in parts; and a model knows no more places than it was trained for.
    shape.context = std::min(shape.context, trained);
    shape.batch = shape.ubatch = shape.context;
    shape.parallel = 1;
  } else {
    shape.batch = std::min(wanted.batch, shape.context);
    shape.ubatch = std::min(wanted.ubatch, shape.batch);
    shape.parallel = wanted.parallel;
  }
  return shape;
}

Error Graph::decoder(Context *context, const Options &wanted, Decoder *&decoder, int32_t &slot) {
  const Shape asked = shape(wanted);
  for (const auto &open : decoders) {
    if (open->shape == asked && (slot = open->claim(context)) >= 0) {
      open->set_threads(wanted.threads);
      decoder = open.get();
      return Error::none;
    }
  }
  logs().complaint.clear();
  std::unique_ptr<Decoder> opened = Decoder::open(llama(), asked, wanted.threads);
  if (!opened) {
    say("no context of " + std::to_string(asked.context) + " tokens could be made" + logs().reason());
    return Error::runtime_error;
  }
  slot = opened->claim(context);
  decoder = opened.get();
  decoders.push_back(std::move(opened));
  return Error::none;
}

void Graph::drop(Decoder *decoder) {
  decoders.erase(std::remove_if(decoders.begin(), decoders.end(), [&](const auto &open) { return open.get() == decoder; }), decoders.end());
}

// ---- Context

Error Context::open(std::shared_ptr<Graph> graph, std::unique_ptr<Context> &into) {
  std::unique_ptr<Context> context(new Context(std::move(graph)));
  // Now, not at the first prompt: what there is no memory for is known before anyone waits.
  const Error error = context->graph->decoder(context.get(), context->options, context->decoder, context->slot);
  if (error == Error::none) {
    into = std::move(context);
  }
  return error;
}

Context::~Context() { leave(); }

void Context::leave() {
  if (decoder == nullptr) {
    return;
  }
  decoder->release(slot);
  if (decoder->unused()) {
    graph->drop(decoder);
  }
  decoder = nullptr;
}

// reshape gets a slot of another decoder if the options ask for another shape.
Error Context::reshape(const Options &changed) {
  const bool same = changed.context == options.context && changed.batch == options.batch && changed.ubatch == options.ubatch &&
                    changed.embedding == options.embedding && changed.parallel == options.parallel;
  if (same && decoder != nullptr) {
    if (changed.threads != options.threads) {
      decoder->set_threads(changed.threads);
    }
    return Error::none;
  }
  leave(); // first: there may not be memory for both
  state = State::idle;
  return graph->decoder(this, changed, decoder, slot);
}

Error Context::set_input(uint32_t index, std::string_view data) {
  if (index == 0) {
    return set_prompt(data);
  }
  if (index != 1) {
    return Error::invalid_argument;
  }
  Options changed = options;
  Error error = read_options(data, changed);
  if (error == Error::none) {
    logs().follow(changed);
    error = reshape(changed);
    options = std::move(changed);
  }
  return error;
}

Error Context::set_prompt(std::string_view data) {
  if (data.size() > static_cast<size_t>(INT32_MAX) - 2) {
    return Error::too_large;
  }
  prompt = tokenize(graph->vocab(), valid_utf8(data));
  has_prompt = true;
  if (state == State::ended) {
    state = State::idle;
  }
  if (state == State::idle) {
    generated = 0;
    finish_reason = "";
    answer.clear();
    last.clear();
  }
  return Error::none;
}

bool Context::make_sampler() {
  sampler.reset(llama_sampler_chain_init(llama_sampler_chain_default_params()));
  const auto add = [&](llama_sampler *one) { llama_sampler_chain_add(sampler.get(), one); };
  if (!options.grammar.empty()) {
    llama_sampler *grammar = llama_sampler_init_grammar(graph->vocab(), options.grammar.c_str(), "root");
    if (grammar == nullptr) {
      say("the grammar cannot be parsed");
      return false;
    }
    add(grammar);
  }
  if (options.penalty_last > 0 && (options.repeat_penalty != 1 || options.presence_penalty != 0 || options.frequency_penalty != 0)) {
    llama_sampler *penalties = llama_sampler_init_penalties(llama_vocab_n_tokens(graph->vocab()), options.penalty_last, options.repeat_penalty,
                                                            options.frequency_penalty, options.presence_penalty);
    // They count what the prompt ends with; the grammar must not see it.
    for (size_t i = prompt.size() - std::min(prompt.size(), static_cast<size_t>(options.penalty_last)); i < prompt.size(); i++) {
      llama_sampler_accept(penalties, prompt[i]);
    }
    add(penalties);
  }
  if (options.temperature <= 0) {
    add(llama_sampler_init_greedy());
    return true;
  }
  if (options.top_k > 0) {
    add(llama_sampler_init_top_k(options.top_k));
  }
  if (options.top_p < 1) {
    add(llama_sampler_init_top_p(options.top_p, 1));
  }
  if (options.min_p > 0) {
    add(llama_sampler_init_min_p(options.min_p, 1));
  }
  add(llama_sampler_init_temp(options.temperature));
  add(llama_sampler_init_dist(options.seed));
  return true;
}

// begin gets everything ready to compute the prompt.
Error Context::begin() {
  if (decoder == nullptr) { // an earlier change of options failed
    const Error error = reshape(options);
    if (error != Error::none) {
      return error;
    }
  }
  // A model without a cache is one for embeddings, and its logits would be nonsense.
  if (options.embedding || llama_get_memory(decoder->llama()) == nullptr) {
    say(options.embedding ? "compute_single on an embedding model" : "this model answers nothing: it is for embeddings, set embedding");
    return Error::unsupported_operation;
  }
  if (!has_prompt || prompt.empty()) {
    return Error::invalid_argument;
  }
  generated = 0;
  answer.clear();
  last.clear();
  ready = given = false;
  std::vector<std::string> stops = options.stop;
  stops.push_back(options.reverse_prompt);
  text = Text(std::move(stops));
  predict = options.predict;
  if (prompt.size() >= decoder->window()) {
    finish_reason = "context";
    return Error::prompt_too_long;
  }
  if (!make_sampler()) {
    return Error::invalid_argument;
  }
  filling = prompt; // a prompt that is set in the meantime is for the next answer
  filled = decoder->keep_common(slot, filling);
  state = State::filling;
  finish_reason = "";
  return Error::none;
}

// fill computes the prompt, or the next part of it, and then samples the first token.
Error Context::fill() {
  int32_t logits = 0;
  const Error error = decoder->prefill(slot, filling, filled, options.prefill, logits);
  if (error != Error::none) {
    state = error == Error::busy ? State::filling : State::idle;
    return error;
  }
  state = State::generating;
  if (predict == 0) {
    end(Error::end_of_sequence, "length");
  } else {
    sample(logits);
  }
  return Error::none;
}

void Context::sample(int32_t logits) {
  try { // a grammar that leads nowhere
    token = llama_sampler_sample(sampler.get(), decoder->llama(), logits);
  } catch (const std::exception &error) {
    say(std::string("sampling failed: ") + error.what());
    end(Error::runtime_error, "error");
    return;
  }
  ready = true;
  given = false;
  if (options.logprobs >= 0) {
    next_probability = probability(llama_get_logits_ith(decoder->llama(), logits));
  }
}

// probability tells how likely the token was that was sampled, and which ones would have been as likely, before any sampler had a say:
// one entry of "logprobs" in OpenAI's API.
std::string Context::probability(const float *logits) const {
  const auto n = static_cast<size_t>(llama_vocab_n_tokens(graph->vocab()));
  const double most = *std::max_element(logits, logits + n);
  double sum = 0;
  for (size_t i = 0; i < n; i++) {
    sum += std::exp(static_cast<double>(logits[i]) - most);
  }
  const auto entry = [&](llama_token of) {
    const std::string piece = piece_of(graph->vocab(), of);
    std::string json = "\"token\":" + quoted(piece) + ",\"logprob\":";
    char number[32];
    std::snprintf(number, sizeof number, "%.6g", static_cast<double>(logits[of]) - most - std::log(sum));
    json += number;
    json += ",\"bytes\":[";
    for (const char byte : piece) {
      json += (json.back() == '[' ? "" : ",") + std::to_string(static_cast<unsigned char>(byte));
    }
    return json + ']';
  };
  std::vector<llama_token> order(n);
  std::iota(order.begin(), order.end(), 0);
  const auto wanted = order.begin() + std::min<long>(options.logprobs, static_cast<long>(n));
  std::partial_sort(order.begin(), wanted, order.end(), [&](llama_token a, llama_token b) { return logits[a] > logits[b]; });
  std::string json = '{' + entry(token) + ",\"top_logprobs\":[";
  for (auto other = order.begin(); other != wanted; other++) {
    json += (other == order.begin() ? "{" : ",{") + entry(*other) + '}';
  }
  return json + "]}";
}

void Context::end(Error how, const char *why) {
  state = State::ended;
  ending = how;
  finish_reason = why;
  ready = given = false;
}

void Context::show(std::string piece) {
  last = std::move(piece);
  answer += last;
  if (options.stream_stdout && !last.empty()) {
    std::fwrite(last.data(), 1, last.size(), stdout);
    std::fflush(stdout);
  }
}

Error Context::compute_single() {
  last.clear();
  last_probability.clear();
  if (state == State::idle) {
    const Error error = begin();
    if (error != Error::none) {
      return error;
    }
  }
  if (state == State::filling) {
    const Error error = fill();
    if (error != Error::none) {
      return error;
    }
  }
  if (state == State::generating && !ready) {
    decoder->step();
  }
  if (state == State::ended) {
    return ending;
  }
  ready = false;
  std::string piece;
  if (llama_vocab_is_eog(graph->vocab(), token)) {
    end(Error::end_of_sequence, "stop");
  } else {
    given = true;
    generated++;
    last_probability = std::move(next_probability);
    piece = text.push(piece_of(graph->vocab(), token));
    if (text.stopped()) {
      end(Error::end_of_sequence, "stop");
    } else if (predict > 0 && generated >= static_cast<uint64_t>(predict)) {
      end(Error::end_of_sequence, "length");
    }
  }
  if (state == State::ended) {
    piece += text.finish();
  }
  show(std::move(piece));
  // The end is told by a call that has no text to give.
  return state == State::ended && last.empty() ? ending : Error::none;
}

Error Context::compute() {
  if (options.embedding) {
    return embed();
  }
  fini_single();
  Error error = Error::none;
  while (error == Error::none || error == Error::busy) {
    error = compute_single();
  }
  return error == Error::end_of_sequence ? Error::none : error;
}

Error Context::fini_single() {
  if (state == State::filling || state == State::generating) {
    finish_reason = "cancelled";
  }
  state = State::idle;
  ready = given = false;
  sampler.reset();
  return Error::none;
}

Error Context::embed() {
  answer.clear();
  if (decoder == nullptr) {
    const Error error = reshape(options);
    if (error != Error::none) {
      return error;
    }
  }
  if (!has_prompt || prompt.empty()) {
    return Error::invalid_argument;
  }
  if (prompt.size() > decoder->window()) {
    return Error::prompt_too_long;
  }
  std::vector<float> values;
  const Error error = decoder->embed(prompt, values);
  if (error != Error::none) {
    return error;
  }
  answer = "{\"n_embedding\":" + std::to_string(values.size()) + ",\"embedding\":[";
  for (const float value : values) {
    char number[32];
    std::snprintf(number, sizeof number, "%.9g,", static_cast<double>(value));
    answer += number;
  }
  answer.back() = ']';
  answer += '}';
  return Error::none;
}

std::string Context::describe() const {
  return "{\"input_tokens\":" + std::to_string(prompt.size()) + ",\"output_tokens\":" + std::to_string(generated) + ",\"finish_reason\":" +
         (*finish_reason == '\0' ? std::string("null") : '"' + std::string(finish_reason) + '"') +
         ",\"llama_build_number\":" + std::to_string(build_number()) + ",\"llama_commit\":\"" + ggml_commit() + "\"}";
}

Error Context::output(uint32_t index, std::string &into) const {
  if (index > 1) {
    return Error::invalid_argument;
  }
  into = index == 0 ? answer : describe();
  return Error::none;
}

Error Context::output_single(uint32_t index, std::string &into) const {
  if (index > 2) {
    return Error::invalid_argument;
  }
  into = index == 0 ? last : index == 1 ? describe() : last_probability.empty() ? "null" : last_probability;
  return Error::none;
}

} // namespace nn
