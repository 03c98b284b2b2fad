// The plug-in: WasmEdge's C API on one side, core.h on the other. It gives a guest the
// module wasi_ephemeral_nn, as the wasmedge-wasi-nn crate imports it.
#include <wasmedge/wasmedge.h>

#include <array>
#include <cstring>
#include <fstream>
#include <map>
#include <mutex>
#include <stdexcept>
#include <vector>

#include "core.h"

namespace {

using nn::Error;

// Of the crate's GraphEncoding and ExecutionTarget.
constexpr uint32_t encoding_autodetect = 5;
constexpr uint32_t encoding_ggml = 6;
constexpr uint32_t target_cpu = 0;

// The llama-core crate hands over the address of a buffer of this many bytes, and says
// its length were 0.
constexpr uint32_t llama_core_buffer = (1U << 14U) * 15 + 128;

// ---- The models named on the command line

WasmEdge_String last_preload = {0, ""};
const WasmEdge_String no_preload = {0, ""};

struct Preload {
  std::string path;
  bool cpu = false;
};

// preload_options gives every --nn-preload. The C API keeps only the last of an option
// given several times, so the others are read from the command line itself.
std::vector<std::string> preload_options() {
  const std::string last(last_preload.Buf, last_preload.Length);
  if (last.empty()) {
    return {};
  }
  const std::string option = "--nn-preload";
  std::vector<std::string> found;
  size_t count = 0; // up to the one WasmEdge saw last: what follows are the guest's arguments
  std::ifstream file("/proc/self/cmdline", std::ios::binary);
  std::string argument;
  bool value = false;
  while (std::getline(file, argument, '\0')) {
    if (value) {
      found.push_back(argument);
    } else if (argument.rfind(option + '=', 0) == 0) {
      found.push_back(argument.substr(option.size() + 1));
    }
    value = !value && argument == option;
    if (!found.empty() && found.back() == last) {
      count = found.size();
    }
  }
  found.resize(count);
  return found.empty() ? std::vector<std::string>{last} : found;
}

// preloads reads name:GGML:AUTO:path of each. The path may have colons.
std::map<std::string, Preload> preloads() {
  std::map<std::string, Preload> models;
  for (const std::string &option : preload_options()) {
    std::array<std::string, 3> words; // name, encoding, target
    size_t at = 0;
    for (std::string &word : words) {
      const size_t colon = option.find(':', at);
      if (colon == std::string::npos) {
        at = std::string::npos;
        break;
      }
      word = option.substr(at, colon - at);
      at = colon + 1;
    }
    if (at == std::string::npos || at == option.size() || words[0].empty() || (words[1] != "GGML" && words[1] != "ggml")) {
      nn::say("--nn-preload " + option + " is not name:GGML:AUTO:path");
      continue;
    }
    models[words[0]] = {option.substr(at), words[2] == "CPU" || words[2] == "cpu"};
  }
  return models;
}

// ---- The guest's memory

// Memory gives checked access to the memory of the guest that calls.
class Memory {
public:
  explicit Memory(const WasmEdge_CallingFrameContext *frame) : memory(WasmEdge_CallingFrameGetMemoryInstance(frame, 0)) {}

  bool missing() const { return memory == nullptr; }

  // at gives null if the guest has not all of these bytes.
  uint8_t *at(uint32_t offset, uint32_t length) const {
    static uint8_t nothing = 0;
    const uint64_t size = WasmEdge_MemoryInstanceGetPageSize(memory) * 65536;
    if (uint64_t{offset} + length > size) {
      return nullptr;
    }
    return length == 0 ? &nothing : WasmEdge_MemoryInstanceGetPointer(memory, offset, length);
  }

  // bytes views the guest's own bytes: it must not run while they are looked at.
  bool bytes(uint32_t offset, uint32_t length, std::string_view &into) const {
    const uint8_t *pointer = at(offset, length);
    if (pointer == nullptr) {
      return false;
    }
    into = std::string_view(reinterpret_cast<const char *>(pointer), length);
    return true;
  }

  bool read(uint32_t offset, uint32_t &into) const {
    const uint8_t *pointer = at(offset, sizeof into);
    if (pointer != nullptr) {
      std::memcpy(&into, pointer, sizeof into);
    }
    return pointer != nullptr;
  }

  bool write(uint32_t offset, uint32_t value) const {
    uint8_t *pointer = at(offset, sizeof value);
    if (pointer != nullptr) {
      std::memcpy(pointer, &value, sizeof value);
    }
    return pointer != nullptr;
  }

  // room is how many of this many bytes the guest has.
  uint32_t room(uint32_t offset, uint32_t most) const {
    const uint64_t size = WasmEdge_MemoryInstanceGetPageSize(memory) * 65536;
    return offset >= size ? 0 : static_cast<uint32_t>(std::min<uint64_t>(most, size - offset));
  }

private:
  WasmEdge_MemoryInstanceContext *memory;
};

// ---- The functions

class Machine;
using Arguments = std::array<uint32_t, 5>;
using Handler = Error (Machine::*)(const Memory &, const Arguments &);

struct Function {
  const char *name;
  uint32_t arguments;
  Handler handler;
};

struct Bound {
  Machine *machine;
  const Function *function;
};

// Machine is what one module instance holds for its guest. A handle is never given twice.
class Machine {
public:
  static WasmEdge_ModuleInstanceContext *create();

private:
  struct Running {
    uint32_t graph;
    std::unique_ptr<nn::Context> context;
  };

  static const std::array<Function, 12> functions;
  static WasmEdge_Result call(void *data, const WasmEdge_CallingFrameContext *frame, const WasmEdge_Value *in, WasmEdge_Value *out);

  Error load(const Memory &memory, const Arguments &a);
  Error load_by_name(const Memory &memory, const Arguments &a);
  Error load_by_name_with_config(const Memory &memory, const Arguments &a);
  Error unload(const Memory &memory, const Arguments &a);
  Error init_execution_context(const Memory &memory, const Arguments &a);
  Error finalize_execution_context(const Memory &memory, const Arguments &a);
  Error set_input(const Memory &memory, const Arguments &a);
  Error compute(const Memory &memory, const Arguments &a);
  Error compute_single(const Memory &memory, const Arguments &a);
  Error fini_single(const Memory &memory, const Arguments &a);
  Error get_output(const Memory &memory, const Arguments &a);
  Error get_output_single(const Memory &memory, const Arguments &a);

  Error named(const Memory &memory, uint32_t name, uint32_t length, std::string_view config, uint32_t handle);
  Error keep(const Memory &memory, std::shared_ptr<nn::Graph> graph, uint32_t handle);
  static Error give(const Memory &memory, const std::string &output, const Arguments &a);
  nn::Context *context(uint32_t handle) {
    const auto found = contexts.find(handle);
    return found == contexts.end() ? nullptr : found->second.context.get();
  }

  static std::mutex mutex; // one for all machines: the core shares models and the log between them
  std::map<std::string, Preload> models = preloads();
  std::map<uint32_t, std::shared_ptr<nn::Graph>> graphs;
  std::map<uint32_t, Running> contexts;
  uint32_t next = 0;
  std::array<Bound, 12> bound{};
};

std::mutex Machine::mutex;

const std::array<Function, 12> Machine::functions{{
    {"load", 5, &Machine::load},
    {"load_by_name", 3, &Machine::load_by_name},
    {"load_by_name_with_config", 5, &Machine::load_by_name_with_config},
    {"unload", 1, &Machine::unload},
    {"init_execution_context", 2, &Machine::init_execution_context},
    {"finalize_execution_context", 1, &Machine::finalize_execution_context},
    {"set_input", 3, &Machine::set_input},
    {"compute", 1, &Machine::compute},
    {"compute_single", 1, &Machine::compute_single},
    {"fini_single", 1, &Machine::fini_single},
    {"get_output", 5, &Machine::get_output},
    {"get_output_single", 5, &Machine::get_output_single},
}};

// keep gives the guest a handle of graph, at the address handle.
Error Machine::keep(const Memory &memory, std::shared_ptr<nn::Graph> graph, uint32_t handle) {
  if (!memory.write(handle, next)) {
    return Error::invalid_argument;
  }
  graphs[next++] = std::move(graph);
  return Error::none;
}

Error Machine::named(const Memory &memory, uint32_t name, uint32_t length, std::string_view config, uint32_t handle) {
  std::string_view text;
  if (!memory.bytes(name, length, text) || memory.at(handle, 4) == nullptr) {
    return Error::invalid_argument;
  }
  const auto model = models.find(std::string(text));
  if (model == models.end()) {
    nn::say("no --nn-preload names the model a guest asked for");
    return Error::not_found;
  }
  std::shared_ptr<nn::Graph> graph;
  const Error error = nn::Graph::load(model->second.path, config, model->second.cpu, graph);
  return error == Error::none ? keep(memory, std::move(graph), handle) : error;
}

Error Machine::load_by_name(const Memory &memory, const Arguments &a) { return named(memory, a[0], a[1], "", a[2]); }

Error Machine::load_by_name_with_config(const Memory &memory, const Arguments &a) {
  std::string_view config;
  return memory.bytes(a[2], a[3], config) ? named(memory, a[0], a[1], config, a[4]) : Error::invalid_argument;
}

// load takes the model's bytes, and optionally its metadata as a second part.
Error Machine::load(const Memory &memory, const Arguments &a) {
  if (a[2] != encoding_ggml && a[2] != encoding_autodetect) {
    return Error::invalid_encoding;
  }
  std::array<std::string_view, 2> parts;
  if (a[1] == 0 || a[1] > parts.size() || memory.at(a[4], 4) == nullptr) {
    return Error::invalid_argument;
  }
  for (uint32_t i = 0; i < a[1]; i++) {
    uint32_t pointer = 0;
    uint32_t length = 0;
    // The address of the parts may be so high that that of the second is beyond 32 bits.
    const uint64_t part = uint64_t{a[0]} + i * 8;
    if (part > UINT32_MAX - 8 || !memory.read(static_cast<uint32_t>(part), pointer) || !memory.read(static_cast<uint32_t>(part) + 4, length) ||
        !memory.bytes(pointer, length, parts[i])) {
      return Error::invalid_argument;
    }
  }
  std::shared_ptr<nn::Graph> graph;
  const Error error = nn::Graph::load_bytes(parts[0], parts[1], a[3] == target_cpu, graph);
  return error == Error::none ? keep(memory, std::move(graph), a[4]) : error;
}

Error Machine::unload(const Memory & /*memory*/, const Arguments &a) {
  for (auto running = contexts.begin(); running != contexts.end();) {
    running = running->second.graph == a[0] ? contexts.erase(running) : std::next(running);
  }
  return graphs.erase(a[0]) == 1 ? Error::none : Error::invalid_argument;
}

Error Machine::init_execution_context(const Memory &memory, const Arguments &a) {
  const auto graph = graphs.find(a[0]);
  if (graph == graphs.end() || memory.at(a[1], 4) == nullptr) {
    return Error::invalid_argument;
  }
  std::unique_ptr<nn::Context> context;
  const Error error = nn::Context::open(graph->second, context);
  if (error == Error::none) {
    memory.write(a[1], next);
    contexts[next++] = {a[0], std::move(context)};
  }
  return error;
}

Error Machine::finalize_execution_context(const Memory & /*memory*/, const Arguments &a) {
  return contexts.erase(a[0]) == 1 ? Error::none : Error::invalid_argument;
}

// set_input takes a tensor: the address and length of its dimensions, its type, the
// address and length of its bytes. A text is one of bytes, so only these matter.
Error Machine::set_input(const Memory &memory, const Arguments &a) {
  nn::Context *running = context(a[0]);
  std::string_view tensor;
  std::string_view data;
  if (running == nullptr || !memory.bytes(a[2], 20, tensor)) {
    return Error::invalid_argument;
  }
  std::array<uint32_t, 5> words{};
  std::memcpy(words.data(), tensor.data(), sizeof words);
  return memory.bytes(words[3], words[4], data) ? running->set_input(a[1], data) : Error::invalid_argument;
}

Error Machine::compute(const Memory & /*memory*/, const Arguments &a) {
  nn::Context *running = context(a[0]);
  return running == nullptr ? Error::invalid_argument : running->compute();
}

Error Machine::compute_single(const Memory & /*memory*/, const Arguments &a) {
  nn::Context *running = context(a[0]);
  return running == nullptr ? Error::invalid_argument : running->compute_single();
}

Error Machine::fini_single(const Memory & /*memory*/, const Arguments &a) {
  nn::Context *running = context(a[0]);
  return running == nullptr ? Error::invalid_argument : running->fini_single();
}

// give writes output where a guest wants it: a[2], a[3] bytes, and its length to a[4].
// What does not fit is not cut: the guest gets too_large, and the length it needs.
Error Machine::give(const Memory &memory, const std::string &output, const Arguments &a) {
  const uint32_t most = a[3] != 0 ? a[3] : memory.room(a[2], llama_core_buffer);
  if (output.size() > UINT32_MAX || !memory.write(a[4], static_cast<uint32_t>(output.size()))) {
    return Error::invalid_argument;
  }
  if (output.size() > most) {
    return Error::too_large;
  }
  uint8_t *into = memory.at(a[2], static_cast<uint32_t>(output.size()));
  if (into == nullptr) {
    return Error::invalid_argument;
  }
  std::memcpy(into, output.data(), output.size());
  return Error::none;
}

Error Machine::get_output(const Memory &memory, const Arguments &a) {
  const nn::Context *running = context(a[0]);
  std::string output;
  const Error error = running == nullptr ? Error::invalid_argument : running->output(a[1], output);
  return error == Error::none ? give(memory, output, a) : error;
}

Error Machine::get_output_single(const Memory &memory, const Arguments &a) {
  const nn::Context *running = context(a[0]);
  std::string output;
  const Error error = running == nullptr ? Error::invalid_argument : running->output_single(a[1], output);
  return error == Error::none ? give(memory, output, a) : error;
}

// call is what WasmEdge calls for each of the functions.
WasmEdge_Result Machine::call(void *data, const WasmEdge_CallingFrameContext *frame, const WasmEdge_Value *in, WasmEdge_Value *out) {
  const Bound &bound = *static_cast<const Bound *>(data);
  Error error = Error::runtime_error;
  try { // WasmEdge is not prepared for exceptions
    const std::lock_guard<std::mutex> lock(mutex);
    const Memory memory(frame);
    Arguments arguments{};
    for (uint32_t i = 0; i < bound.function->arguments; i++) {
      arguments[i] = static_cast<uint32_t>(WasmEdge_ValueGetI32(in[i]));
    }
    error = memory.missing() ? Error::missing_memory : (bound.machine->*bound.function->handler)(memory, arguments);
  } catch (const std::exception &exception) {
    nn::say(std::string(bound.function->name) + ": " + exception.what());
  }
  out[0] = WasmEdge_ValueGenI32(static_cast<int32_t>(error));
  return WasmEdge_Result_Success;
}

WasmEdge_ModuleInstanceContext *Machine::create() {
  auto *machine = new Machine;
  const WasmEdge_String name = WasmEdge_StringCreateByCString("wasi_ephemeral_nn");
  WasmEdge_ModuleInstanceContext *module =
      WasmEdge_ModuleInstanceCreateWithData(name, machine, [](void *data) { delete static_cast<Machine *>(data); });
  WasmEdge_StringDelete(name);
  const std::array<WasmEdge_ValType, 5> arguments{WasmEdge_ValTypeGenI32(), WasmEdge_ValTypeGenI32(), WasmEdge_ValTypeGenI32(),
                                                  WasmEdge_ValTypeGenI32(), WasmEdge_ValTypeGenI32()};
  for (size_t i = 0; i < functions.size(); i++) {
    machine->bound[i] = {machine, &functions[i]};
    WasmEdge_FunctionTypeContext *type = WasmEdge_FunctionTypeCreate(arguments.data(), functions[i].arguments, arguments.data(), 1);
    WasmEdge_FunctionInstanceContext *function = WasmEdge_FunctionInstanceCreate(type, call, &machine->bound[i], 0);
    WasmEdge_FunctionTypeDelete(type);
    const WasmEdge_String called = WasmEdge_StringCreateByCString(functions[i].name);
    WasmEdge_ModuleInstanceAddFunction(module, called, function);
    WasmEdge_StringDelete(called);
  }
  return module;
}

WasmEdge_ModuleInstanceContext *create(const WasmEdge_ModuleDescriptor * /*descriptor*/) {
  try {
    return Machine::create();
  } catch (const std::exception &exception) {
    nn::say(exception.what());
    return nullptr;
  }
}

std::array<WasmEdge_ProgramOption, 1> options{{{
    "nn-preload",
    "A model for the guest, as NAME:GGML:AUTO:PATH. May be given several times.",
    WasmEdge_ProgramOptionType_String,
    &last_preload,
    &no_preload,
}}};

std::array<WasmEdge_ModuleDescriptor, 1> modules{{{"wasi_nn", "WASI-NN with GGML models, on llama.cpp", create}}};

const WasmEdge_PluginDescriptor descriptor{
    "wasi_nn",     "Assistant's WASI-NN plug-in for GGML models", WasmEdge_Plugin_CurrentAPIVersion, {0, 1, 0, 0}, modules.size(), options.size(),
    modules.data(), options.data(),
};

} // namespace

WASMEDGE_CAPI_PLUGIN_EXPORT const WasmEdge_PluginDescriptor *WasmEdge_Plugin_GetDescriptor() { return &descriptor; }
