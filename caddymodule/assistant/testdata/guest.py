"""The official client on the guest in WasmEdge: what it makes of each answer. Prints one line of JSON: what failed."""
import concurrent.futures
import json
import os
import time

from openai import BadRequestError, NotFoundError, OpenAI

client = OpenAI(base_url=os.environ["BASE_URL"], api_key="unused", max_retries=0)
system = {"role": "system", "content": "You are a helpful assistant."}
paris = [system, {"role": "user", "content": "What is the capital of France?"}]
count = [{"role": "user", "content": "Count."}]
weather = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {"city": {"type": "string", "maxLength": 8}}, "required": ["city"]}}}
failed, checks = [], 0


def check(what, got, want=True):
    global checks
    checks += 1
    if got != want:
        failed.append(f"{what}: got {got!r}, want {want!r}")


def knows(text):
    """So small a model's words differ with the processor that computes them; what they are about does not."""
    return "Paris" in text or "France" in text


def chat(model="smollm2", messages=paris, **more):
    return client.chat.completions.create(model=model, messages=messages, **more)


def streamed(**more):
    """Text, finish_reasons, usage, distinct ids and tool calls of a stream."""
    text, finish, usage, ids, calls = "", [], None, set(), []
    for chunk in chat(stream=True, **more):
        ids.add(chunk.id)
        usage = chunk.usage or usage
        for choice in chunk.choices:
            text += choice.delta.content or ""
            calls += choice.delta.tool_calls or []
            if choice.finish_reason:
                finish.append(choice.finish_reason)
    return text, finish, usage, ids, calls


def refused(param, error=BadRequestError, call=chat, code="", **more):
    try:
        call(**more)
        check(f"{param} is refused", False)
    except error as e:
        check(f"{param} is refused by its name", (e.param, e.type), (param, "invalid_request_error"))
        if code:
            check(f"{param}: code", e.code, code)


# The counting model: exactly so many tokens, and no other text.
whole = chat("tiny", count, max_tokens=5)
check("plain text", whole.choices[0].message.content, " 1 2 3 4 5")
check("plain end", (whole.choices[0].finish_reason, whole.model, whole.usage.completion_tokens), ("length", "tiny", 5))
check("plain id", whole.id.startswith("chatcmpl-"))
text, finish, usage, ids, _ = streamed(model="tiny", messages=count, max_completion_tokens=150)
check("streamed text", text, "".join(f" {i}" for i in range(1, 151)))
check("streamed end", (finish, usage, len(ids)), (["length"], None, 1))
text, finish, usage, _, _ = streamed(model="tiny", messages=count, stream_options={"include_usage": True})
check("streamed to its end", (text.split()[-1], finish, usage.completion_tokens), ("200", ["stop"], 200))
check("stop over tokens", streamed(model="tiny", messages=count, stop="5 6")[:2], (" 1 2 3 4 ", ["stop"]))
check("stop array", chat("tiny", count, stop=["x", " 3"]).choices[0].message.content, " 1 2")
with client.chat.completions.stream(model="tiny", messages=count, stop=" 4") as stream:
    for _ in stream:
        pass
    check("stream helper", stream.get_final_completion().choices[0].finish_reason, "stop")
text = "".join(c.choices[0].text for c in client.completions.create(model="tiny", prompt="Hi", stream=True, stop=" 4"))
check("completion streamed", text, " 1 2 3")
done = client.completions.create(model="tiny", prompt="Hi", max_tokens=2)
check("completion", (done.choices[0].text, done.choices[0].finish_reason, done.object), (" 1 2", "length", "text_completion"))

# The real model.
answer = chat(temperature=0, max_tokens=24)
check("it knows Paris", knows(answer.choices[0].message.content))
check("streamed the same", streamed(temperature=0, max_tokens=24)[0], answer.choices[0].message.content)
check("seed", chat(seed=7, max_tokens=12).choices[0].message.content, chat(seed=7, max_tokens=12).choices[0].message.content)
logs = chat(temperature=0, max_tokens=3, logprobs=True, top_logprobs=2).choices[0].logprobs.content
check("logprobs", (len(logs), len(logs[0].top_logprobs), logs[0].token == logs[0].top_logprobs[0].token, logs[0].logprob <= 0), (3, 2, True, True))
thing = json.loads(chat(messages=[{"role": "user", "content": "Describe Paris in JSON."}], max_tokens=200, seed=1, response_format={"type": "json_schema", "json_schema": {"name": "city", "schema": {
    "type": "object", "properties": {"name": {"type": "string", "maxLength": 12}, "rivers": {"type": "array", "items": {"enum": ["Seine", "Thames"]}, "maxItems": 2}, "big": {"type": "boolean"}}, "required": ["name", "big"], "additionalProperties": False}}}).choices[0].message.content)
check("json_schema", (isinstance(thing["name"], str), isinstance(thing["big"], bool), set(thing) <= {"name", "rivers", "big"}), (True, True, True))
check("json_object", chat(messages=[{"role": "user", "content": "JSON!"}], max_tokens=300, seed=3, response_format={"type": "json_object"}).choices[0].message.content.strip().startswith("{"))
check("parts", knows(chat(messages=[system, {"role": "user", "content": [{"type": "text", "text": "What is the capital"}, {"type": "text", "text": "of France?"}]}], temperature=0, max_tokens=24).choices[0].message.content))

# A template that knows tools, with a model too small to call one unless it must.
call = chat("caller", tools=[weather], tool_choice="required", max_tokens=200).choices[0]
check("tool called", (call.finish_reason, call.message.tool_calls[0].function.name, list(json.loads(call.message.tool_calls[0].function.arguments))), ("tool_calls", "weather", ["city"]))
_, finish, _, _, calls = streamed(model="caller", tools=[weather], tool_choice={"type": "function", "function": {"name": "weather"}}, max_tokens=200)
check("tool called in a stream", (finish, [c.function.name for c in calls], calls[0].id.startswith("call_")), (["tool_calls"], ["weather"], True))
check("tool not called", streamed(model="caller", tools=[weather], tool_choice="none", max_tokens=3)[1], ["length"])

refused("n", n=2)
refused("tools", tools=[weather])
refused("temperature", temperature=3)
refused("response_format", response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "string", "pattern": "a+"}}})
refused("messages", messages=[{"role": "user", "content": "word " * 4000}], code="context_length_exceeded")
refused("messages[1].content[0]", messages=[system, {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,"}}]}])
refused("model", error=NotFoundError, model="nobody")
refused("input", call=client.embeddings.create, model="smollm2", input=[1, -2, 3])
refused("input", call=client.embeddings.create, model="smollm2", input="word " * 2000, code="context_length_exceeded")
check("ignored if it may be", chat("tiny", count, n=2, max_tokens=1, extra_body={"drop_params": True}).choices[0].message.content, " 1")

# Embeddings from the same instance, and from one of their own.
same = client.embeddings.create(model="smollm2", input=["A cat sat.", "b"])
check("vectors", ([len(d.embedding) for d in same.data], same.usage.prompt_tokens > 4), ([384, 384], True))
own = client.embeddings.create(model="minilm", input="A cat sat.", encoding_format="float").data[0].embedding
check("the same vector in floats", max(abs(a - b) for a, b in zip(own, same.data[0].embedding)) < 1e-5)

# Two at once, on one instance.
story = [{"role": "user", "content": "Tell me a story about a lighthouse."}]
begun = time.monotonic()
alone = [chat(messages=story, max_tokens=48, temperature=0).choices[0].message.content for _ in range(2)]
apart = time.monotonic() - begun
with concurrent.futures.ThreadPoolExecutor() as pool:
    begun = time.monotonic()
    both = [f.result().choices[0].message.content for f in [pool.submit(chat, messages=story, max_tokens=48, temperature=0) for _ in range(2)]]
    together = time.monotonic() - begun
check("two at once say something", [len(b) > 20 for b in both], [True, True])

# A client that leaves in the middle frees the slot: the model has one only.
for _ in range(3):
    stream = chat("one", messages=story, max_tokens=2000, stream=True)
    next(stream)
    stream.close()
begun = time.monotonic()
check("after clients that left", knows(chat("one", temperature=0, max_tokens=24).choices[0].message.content))

print(json.dumps({"checks": checks, "failed": failed, "apart": apart, "together": together, "after_leaving": time.monotonic() - begun}))
