// The test of the plug-in's core, without WasmEdge. It is built with the sanitizers:
//   harness CHAT_MODEL EMBEDDING_MODEL COUNTING_MODEL
// the third being make_tiny.py's, which answers everything with " 1 2 3 … 200".
#include <unistd.h>

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <string>

#include "core.h"

using nn::Context;
using nn::Error;
using nn::Graph;
using nn::Options;

namespace {

int failures = 0;
const char *test = "";

#define CHECK(wanted)                                                                        \
  do {                                                                                       \
    if (!(wanted)) {                                                                         \
      std::fprintf(stderr, "%s:%d: %s: not so: %s\n", __FILE__, __LINE__, test, #wanted);    \
      failures++;                                                                            \
    }                                                                                        \
  } while (false)

// EQUAL compares what std::to_string or a string can show.
std::string shown(const std::string &text) { return '"' + text + '"'; }
std::string shown(Error error) { return "error " + std::to_string(static_cast<uint32_t>(error)); }
std::string shown(size_t number) { return std::to_string(number); }

template <typename T> void equal(int line, const T &got, const T &want) {
  if (!(got == want)) {
    std::fprintf(stderr, "%s:%d: %s: got %s, want %s\n", __FILE__, line, test, shown(got).c_str(), shown(want).c_str());
    failures++;
  }
}
#define EQUAL(got, want) equal<std::decay_t<decltype(want)>>(__LINE__, got, want)

std::string chat, embedding, counting;
const std::string paris = "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n";

std::unique_ptr<Context> open(const std::string &path, const std::string &json) {
  std::shared_ptr<Graph> graph;
  std::unique_ptr<Context> context;
  EQUAL(Graph::load(path, json, false, graph), Error::none);
  if (graph) {
    EQUAL(Context::open(graph, context), Error::none);
  }
  if (!context) {
    std::exit(1);
  }
  return context;
}

std::string output(const Context &context, uint32_t index = 0) {
  std::string text;
  EQUAL(context.output(index, text), Error::none);
  return text;
}

// stream makes all tokens one by one, and checks that they are the answer.
std::string stream(Context &context, Error &how) {
  std::string text;
  while ((how = context.compute_single()) == Error::none) {
    std::string piece;
    EQUAL(context.output_single(0, piece), Error::none);
    text += piece;
  }
  EQUAL(output(context), text);
  return text;
}

bool has(const std::string &text, const std::string &part) { return text.find(part) != std::string::npos; }

void options() {
  Options o;
  EQUAL(nn::parse(R"({"ctx-size":77,"temp":0.25,"seed":4294967295,"stop":["a","b"],"tensor-split":"3,2","unknown":1,"reverse-prompt":null})", o),
        std::string());
  CHECK(o.context == 77 && o.temperature == 0.25F && o.seed == 0xFFFFFFFF && o.stop.size() == 2 && o.tensor_split.size() == 2);
  // What llama-core sends.
  EQUAL(nn::parse(R"({"enable-log":true,"enable-debug-log":false,"embedding":false,"n-predict":-1,"n-gpu-layers":100,"use-mmap":true,)"
                  R"("split-mode":"layer","ctx-size":4096,"batch-size":512,"ubatch-size":512,"threads":2,"temp":1.0,"top-p":1.0,)"
                  R"("repeat-penalty":1.1,"presence-penalty":0.0,"frequency-penalty":0.0,"grammar":"","json_schema":null,"include_usage":false})",
                  o),
        std::string());
  CHECK(o.context == 4096 && o.log && o.predict == -1 && o.repeat_penalty == 1.1F);
  for (const char *wrong :
       {"", "{", "[]", "1", "{\"threads\":0}", "{\"threads\":\"2\"}", "{\"ctx-size\":-1}", "{\"ctx-size\":1.5}", "{\"ctx-size\":18446744073709551615}",
        "{\"n-predict\":-3}", "{\"temp\":-1}", "{\"temp\":1e999}", "{\"embedding\":1}", "{\"stop\":\"a\"}", "{\"stop\":[1]}", "{\"split-mode\":\"x\"}",
        "{\"tensor-split\":\"1,,2\"}", "{\"grammar\":[]}", "{\"json_schema\":\"{}\"}", "{\"tts\":true}", "{\"mmproj\":\"x\"}", "{\"temp\":0,\"top-p\":2}"}) {
    Options before;
    before.temperature = 0.5F;
    CHECK(!nn::parse(wrong, before).empty());
    CHECK(before.temperature == 0.5F); // none is changed if one is wrong
  }
  std::string deep(100000, '[');
  CHECK(!nn::parse(deep, o).empty());
}

void text() {
  EQUAL(nn::valid_utf8("a\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80"), std::string("a\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80"));
  EQUAL(nn::valid_utf8("\xC0\x80|\xED\xA0\x80|\xF5|\xE2\x82"),
        std::string("\xEF\xBF\xBD\xEF\xBF\xBD|\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD|\xEF\xBF\xBD|\xEF\xBF\xBD\xEF\xBF\xBD"));

  nn::Text plain;
  EQUAL(plain.push("a\xF0\x9F"), std::string("a"));
  EQUAL(plain.push("\x98"), std::string());
  EQUAL(plain.push("\x80"), std::string("\xF0\x9F\x98\x80"));
  EQUAL(plain.push("\xE2"), std::string());
  EQUAL(plain.finish(), std::string("\xEF\xBF\xBD"));

  nn::Text stops({"END", "", "\n\n", "ENDLESS"}); // the empty one counts for nothing
  EQUAL(stops.push("x EN"), std::string("x "));
  EQUAL(stops.push("T\n"), std::string("ENT"));
  EQUAL(stops.push("E"), std::string("\n"));
  CHECK(!stops.stopped());
  EQUAL(stops.push("ND more"), std::string());
  CHECK(stops.stopped());
  EQUAL(stops.push("more"), std::string());
  EQUAL(stops.finish(), std::string());

  // Whatever the pieces, what comes out is the same.
  const std::string whole = "aab\xC3\xA9"
                            "aabSTOPx";
  for (size_t cut = 0; cut <= whole.size(); cut++) {
    for (size_t second = cut; second <= whole.size(); second++) {
      nn::Text t({"STOP", "aac"});
      std::string all = t.push(whole.substr(0, cut));
      all += t.push(whole.substr(cut, second - cut));
      all += t.push(whole.substr(second));
      EQUAL(all + t.finish(), whole.substr(0, 8));
    }
  }
}

void answers() {
  auto context = open(chat, R"({"ctx-size":512,"threads":1,"temp":0})");
  EQUAL(context->compute(), Error::invalid_argument); // no prompt yet
  EQUAL(context->compute_single(), Error::invalid_argument);
  EQUAL(context->set_input(2, ""), Error::invalid_argument);
  std::string ignored;
  EQUAL(context->output(2, ignored), Error::invalid_argument);

  EQUAL(context->set_input(0, paris), Error::none);
  CHECK(has(output(*context, 1), "\"input_tokens\":16,\"output_tokens\":0,\"finish_reason\":null,\"llama_build_number\":"));
  EQUAL(context->compute(), Error::none);
  const std::string whole = output(*context);
  CHECK(has(whole, "Paris"));
  CHECK(has(output(*context, 1), "\"finish_reason\":\"stop\""));

  // One by one gives the same; so does a cache that has the prompt already, or another.
  Error how = Error::none;
  for (int round = 0; round < 2; round++) {
    context->fini_single();
    EQUAL(stream(*context, how), whole);
    EQUAL(how, Error::end_of_sequence);
    EQUAL(context->compute_single(), Error::end_of_sequence);
  }
  EQUAL(context->set_input(0, "<|im_start|>user\nWhat is 2+2?<|im_end|>\n<|im_start|>assistant\n"), Error::none);
  EQUAL(context->compute_single(), Error::none);
  EQUAL(context->fini_single(), Error::none); // in the middle
  EQUAL(context->fini_single(), Error::none);
  CHECK(has(output(*context, 1), "cancelled"));
  EQUAL(context->set_input(0, paris), Error::none);
  EQUAL(context->compute(), Error::none);
  EQUAL(output(*context), whole);

  // A prompt and options that come in the middle are for the next generation.
  EQUAL(context->compute(), Error::none);
  context->fini_single();
  EQUAL(context->compute_single(), Error::none);
  EQUAL(context->set_input(0, "<|im_start|>user\nWhat is 2+2?<|im_end|>\n<|im_start|>assistant\n"), Error::none);
  EQUAL(context->set_input(1, R"({"n-predict":2})"), Error::none);
  while ((how = context->compute_single()) == Error::none) {
  }
  EQUAL(output(*context), whole);
  context->fini_single();
  EQUAL(context->compute(), Error::none);
  CHECK(has(output(*context, 1), "\"output_tokens\":2,\"finish_reason\":\"length\""));
  CHECK(!has(output(*context), "Paris"));

  // Bytes that are not text, and one that ends a C string.
  EQUAL(context->set_input(0, std::string("\xFF\xFE\x00\xC3(", 5)), Error::none);
  EQUAL(context->compute(), Error::none);
}

// The counting model says " 1 2 3 … 200" and ends.
void counts() {
  auto context = open(counting, R"({"ctx-size":1024,"threads":1,"n-predict":5})");
  Error how = Error::none;
  EQUAL(context->set_input(0, "go"), Error::none);
  EQUAL(stream(*context, how), std::string(" 1 2 3 4 5"));
  CHECK(has(output(*context, 1), "\"output_tokens\":5,\"finish_reason\":\"length\""));

  EQUAL(context->set_input(1, R"({"n-predict":0})"), Error::none);
  EQUAL(context->set_input(0, "go"), Error::none);
  EQUAL(stream(*context, how), std::string());

  EQUAL(context->set_input(1, R"({"n-predict":-1,"reverse-prompt":" 4 5"})"), Error::none);
  EQUAL(context->set_input(0, "go"), Error::none);
  EQUAL(stream(*context, how), std::string(" 1 2 3"));
  CHECK(has(output(*context, 1), "\"finish_reason\":\"stop\""));

  EQUAL(context->set_input(1, R"({"reverse-prompt":"","stop":["7 9"," 9","8 "]})"), Error::none);
  EQUAL(context->set_input(0, "go"), Error::none);
  EQUAL(context->compute(), Error::none);
  EQUAL(output(*context), std::string(" 1 2 3 4 5 6 7 "));

  // A stop string that never comes holds back nothing for good.
  EQUAL(context->set_input(1, R"({"stop":[" 3 4 5 6 8"],"n-predict":6})"), Error::none);
  EQUAL(context->set_input(0, "go"), Error::none);
  EQUAL(stream(*context, how), std::string(" 1 2 3 4 5 6"));

  EQUAL(context->set_input(1, R"({"stop":[],"n-predict":-1,"grammar":"not a grammar"})"), Error::none);
  EQUAL(context->set_input(0, "go"), Error::none);
  EQUAL(context->compute(), Error::invalid_argument);
  EQUAL(context->set_input(1, R"({"grammar":"","temp":2,"seed":7,"repeat-penalty":1.0})"), Error::none);
  EQUAL(context->compute(), Error::none);
  CHECK(has(output(*context), " 199 200"));
}

void grammar() {
  auto context = open(chat, R"json({"ctx-size":512,"threads":1,"temp":0,"grammar":"root ::= \"Par\" (\"is\" | \"ty\")"})json");
  EQUAL(context->set_input(0, paris), Error::none);
  EQUAL(context->compute(), Error::none);
  EQUAL(output(*context), std::string("Paris"));
  // Sampling is the seed's.
  EQUAL(context->set_input(1, R"({"grammar":"","temp":1.5,"seed":11,"repeat-penalty":1.2,"presence-penalty":0.1,"n-predict":12})"), Error::none);
  EQUAL(context->compute(), Error::none);
  const std::string first = output(*context);
  EQUAL(context->compute(), Error::none);
  EQUAL(output(*context), first);
}

void limits() {
  auto context = open(counting, R"({"ctx-size":64,"batch-size":8,"ubatch-size":8,"threads":1})");
  std::string words;
  while (words.size() < 1000) {
    words += " 1";
  }
  EQUAL(context->set_input(0, words), Error::none);
  EQUAL(context->compute(), Error::prompt_too_long);
  EQUAL(output(*context), std::string());
  EQUAL(context->compute_single(), Error::prompt_too_long);
  EQUAL(context->fini_single(), Error::none);

  EQUAL(context->set_input(0, "go"), Error::none);
  EQUAL(context->compute(), Error::context_full);
  CHECK(has(output(*context), " 1 2 3") && !has(output(*context), "200"));
  CHECK(has(output(*context, 1), "\"finish_reason\":\"context\""));
  EQUAL(context->compute_single(), Error::context_full);
  // Exactly full: what was asked, not what llama.cpp rounds it to.
  const std::string described = output(*context, 1);
  const auto number = [&](const std::string &key) { return std::strtoul(described.c_str() + described.find(key) + key.size() + 2, nullptr, 10); };
  EQUAL(static_cast<size_t>(number("input_tokens") + number("output_tokens")), static_cast<size_t>(65));

  // A larger context is another one.
  EQUAL(context->set_input(1, R"({"ctx-size":1024})"), Error::none);
  EQUAL(context->compute(), Error::none);
  CHECK(has(output(*context), "200"));

  std::shared_ptr<Graph> graph;
  EQUAL(Graph::load("/nonexistent/model.gguf", "", false, graph), Error::model_not_found);
  EQUAL(Graph::load("/proc/self/exe", "", false, graph), Error::runtime_error);
  EQUAL(Graph::load(counting, "{", false, graph), Error::invalid_argument);
  EQUAL(Graph::load(counting, R"({"tts":true})", false, graph), Error::unsupported_operation);
  EQUAL(Graph::load_bytes("GGUF", "", false, graph), Error::runtime_error);
  CHECK(!graph);
  const uint32_t cpus = nn::available_cpus();
  CHECK(cpus >= 1 && cpus <= static_cast<uint32_t>(sysconf(_SC_NPROCESSORS_CONF)));
}

// Several contexts of one decoder get the same answers as one alone, in any order.
void together() {
  std::shared_ptr<Graph> graph;
  EQUAL(Graph::load(chat, R"({"ctx-size":256,"threads":1,"temp":0,"parallel":2,"n-predict":20})", false, graph), Error::none);
  std::unique_ptr<Context> contexts[3]; // the third has a decoder of its own
  const std::string questions[3] = {paris, "<|im_start|>user\nWhat is 2+2?<|im_end|>\n<|im_start|>assistant\n", paris};
  std::string alone[3];
  std::string answers[3];
  for (int i = 0; i < 3; i++) {
    EQUAL(Context::open(graph, contexts[i]), Error::none);
    EQUAL(contexts[i]->set_input(0, questions[i]), Error::none);
    EQUAL(contexts[i]->compute(), Error::none);
    alone[i] = output(*contexts[i]);
    contexts[i]->fini_single();
  }
  EQUAL(alone[2], alone[0]);
  bool going = true;
  while (going) {
    going = false;
    for (int i = 0; i < 3; i++) {
      for (int times = 0; times <= i % 2; times++) { // at a different pace
        going = contexts[i]->compute_single() == Error::none || going;
      }
    }
  }
  for (int i = 0; i < 3; i++) {
    EQUAL(output(*contexts[i]), alone[i]);
  }
  // One that leaves in the middle takes nothing with it.
  for (int i = 0; i < 2; i++) {
    contexts[i]->fini_single();
    EQUAL(contexts[i]->compute_single(), Error::none);
  }
  contexts[0].reset();
  while (contexts[1]->compute_single() == Error::none) {
  }
  EQUAL(output(*contexts[1]), alone[1]);
}

// A prompt that is computed in parts holds up nobody, and gives the answer of one that is not.
void parts() {
  std::shared_ptr<Graph> graph;
  EQUAL(Graph::load(chat, R"({"ctx-size":512,"threads":1,"temp":0,"parallel":2,"n-predict":20})", false, graph), Error::none);
  std::string lines;
  for (int i = 0; i < 20; i++) {
    lines += "Another ship is at sea. ";
  }
  const std::string question = "<|im_start|>user\n" + lines + "What is the capital of France?<|im_end|>\n<|im_start|>assistant\n";
  std::unique_ptr<Context> context, other;
  EQUAL(Context::open(graph, context), Error::none);
  EQUAL(Context::open(graph, other), Error::none);
  EQUAL(context->set_input(0, question), Error::none);
  EQUAL(context->compute(), Error::none);
  const std::string whole = output(*context);
  EQUAL(context->set_input(0, "x"), Error::none); // the cache forgets
  EQUAL(context->compute(), Error::none);

  EQUAL(context->set_input(1, R"({"prefill":32})"), Error::none);
  EQUAL(context->set_input(0, question), Error::none);
  EQUAL(other->set_input(0, paris), Error::none);
  int busy = 0;
  std::string nothing;
  while (context->compute_single() == Error::busy) {
    EQUAL(context->output_single(0, nothing), Error::none);
    EQUAL(nothing, std::string());
    EQUAL(other->compute_single(), Error::none);
    busy++;
    if (busy == 2) { // for the next answer
      EQUAL(context->set_input(0, paris), Error::none);
    }
  }
  CHECK(busy >= 3);
  while (context->compute_single() == Error::none) {
  }
  EQUAL(output(*context), whole);
  context->fini_single();
  EQUAL(context->compute(), Error::none);
  CHECK(has(output(*context), "Paris"));

  EQUAL(context->set_input(0, question), Error::none);
  EQUAL(context->compute_single(), Error::busy);
  EQUAL(context->fini_single(), Error::none); // in the middle of the prompt
  CHECK(has(output(*context, 1), "cancelled"));
  EQUAL(context->compute(), Error::none);
  EQUAL(output(*context), whole);
}

void probabilities() {
  auto context = open(chat, R"({"ctx-size":512,"threads":1,"temp":0,"n-predict":4,"logprobs":2})");
  EQUAL(context->set_input(0, paris), Error::none);
  std::string json;
  EQUAL(context->output_single(2, json), Error::none);
  EQUAL(json, std::string("null"));
  EQUAL(context->compute_single(), Error::none);
  EQUAL(context->output_single(2, json), Error::none);
  // Greedy: the token is the likeliest.
  CHECK(has(json, R"({"token":"The","logprob":-)"));
  CHECK(has(json, R"("bytes":[84,104,101],"top_logprobs":[{"token":"The","logprob":-)"));
  CHECK(json.find("token\":", json.find("top_logprobs") + 30) != std::string::npos);
  EQUAL(context->output_single(3, json), Error::invalid_argument);
  EQUAL(context->set_input(1, R"({"logprobs":-1})"), Error::none);
  EQUAL(context->compute_single(), Error::none); // sampled before that
  EQUAL(context->compute_single(), Error::none);
  EQUAL(context->output_single(2, json), Error::none);
  EQUAL(json, std::string("null"));
}

std::vector<float> vector(const std::string &json) {
  std::vector<float> values;
  const char *at = json.c_str() + json.find('[');
  while (at != nullptr && (*at == '[' || *at == ',')) {
    char *end = nullptr;
    values.push_back(std::strtof(at + 1, &end));
    at = end;
  }
  return values;
}

double cosine(const std::vector<float> &a, const std::vector<float> &b) {
  double sum = 0;
  for (size_t i = 0; i < std::min(a.size(), b.size()); i++) {
    sum += static_cast<double>(a[i]) * b[i];
  }
  return sum;
}

void embeddings() {
  auto context = open(embedding, R"({"embedding":true,"ctx-size":384,"threads":1})");
  const auto embed = [&](const std::string &words) {
    EQUAL(context->set_input(0, words), Error::none);
    EQUAL(context->compute(), Error::none);
    CHECK(has(output(*context), "{\"n_embedding\":384,\"embedding\":["));
    return vector(output(*context));
  };
  const auto cat = embed("The cat sits on the mat.");
  EQUAL(cat.size(), static_cast<size_t>(384));
  CHECK(std::fabs(cosine(cat, cat) - 1) < 1e-5);
  CHECK(cosine(cat, embed("A kitten is sitting on a rug.")) > cosine(cat, embed("Stocks fell on Tuesday.")) + 0.3);
  CHECK(cosine(cat, embed("The cat sits on the mat.")) > 0.99999);
  CHECK(has(output(*context, 1), "\"output_tokens\":0"));
  EQUAL(context->compute_single(), Error::unsupported_operation);
  EQUAL(context->fini_single(), Error::none);
  std::string words;
  while (words.size() < 4000) {
    words += "cat ";
  }
  EQUAL(context->set_input(0, words), Error::none);
  EQUAL(context->compute(), Error::prompt_too_long);

  // What has nothing to say says nothing.
  auto mute = open(embedding, R"({"ctx-size":128,"threads":1})");
  EQUAL(mute->set_input(0, "cat"), Error::none);
  EQUAL(mute->compute(), Error::unsupported_operation);
  EQUAL(mute->compute_single(), Error::unsupported_operation);

  // A model for chat changes over and back, as llama-core asks it to.
  auto both = open(chat, R"({"ctx-size":256,"threads":1,"temp":0})");
  EQUAL(both->set_input(1, R"({"embedding":true})"), Error::none);
  EQUAL(both->set_input(0, "cat"), Error::none);
  EQUAL(both->compute(), Error::none);
  EQUAL(vector(output(*both)).size(), static_cast<size_t>(576));
  EQUAL(both->set_input(1, R"({"embedding":false})"), Error::none);
  EQUAL(both->set_input(0, paris), Error::none);
  EQUAL(both->compute(), Error::none);
  CHECK(has(output(*both), "Paris"));
}

void cycles() {
  std::string bytes;
  FILE *file = std::fopen(counting.c_str(), "rb");
  CHECK(file != nullptr);
  for (int c = 0; file != nullptr && (c = std::fgetc(file)) != EOF;) {
    bytes += static_cast<char>(c);
  }
  std::fclose(file);
  for (int i = 0; i < 30; i++) {
    std::shared_ptr<Graph> graph;
    EQUAL(i % 2 == 0 ? Graph::load(counting, R"({"ctx-size":256,"threads":1,"n-predict":3})", false, graph)
                     : Graph::load_bytes(bytes, R"({"ctx-size":256,"threads":1,"n-predict":3})", true, graph),
          Error::none);
    for (int j = 0; j < 3; j++) {
      std::unique_ptr<Context> context;
      EQUAL(Context::open(graph, context), Error::none);
      EQUAL(context->set_input(0, "go"), Error::none);
      EQUAL(context->compute_single(), Error::none);
      if (j > 0) {
        EQUAL(context->compute(), Error::none);
        EQUAL(output(*context), std::string(" 1 2 3"));
      }
    }
  }
}

} // namespace

int main(int argc, char **argv) {
  if (argc != 4) {
    std::fprintf(stderr, "usage: harness CHAT_MODEL EMBEDDING_MODEL COUNTING_MODEL\n");
    return 2;
  }
  chat = argv[1], embedding = argv[2], counting = argv[3];
  const std::pair<const char *, void (*)()> tests[] = {{"options", options},   {"text", text},         {"counts", counts},         {"limits", limits},
                                                       {"cycles", cycles},     {"answers", answers},   {"grammar", grammar},       {"together", together},
                                                       {"parts", parts},       {"probabilities", probabilities},
                                                       {"embeddings", embeddings}};
  for (const auto &[name, run] : tests) {
    test = name;
    const int before = failures;
    const int64_t began = llama_time_us();
    run();
    std::printf("%s: %s (%.1f s)\n", name, failures == before ? "ok" : "FAILED", static_cast<double>(llama_time_us() - began) / 1e6);
    std::fflush(stdout);
  }
  return failures == 0 ? 0 : 1;
}
