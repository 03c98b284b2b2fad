"""The official client on llama-core, which llama-api-server is made of, in WasmEdge. Prints one line of JSON: what failed."""
import json
import os
import time

from openai import BadRequestError, NotFoundError, OpenAI

client = OpenAI(base_url=os.environ["BASE_URL"], api_key="unused", max_retries=0)
paris = [{"role": "system", "content": [{"type": "text", "text": "You are a helpful assistant."}]}, {"role": "user", "content": "What is the capital of France?"}]
count = [{"role": "user", "content": "Count."}]
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
    text, finish, usage, ids, models = "", [], None, set(), set()
    for chunk in chat(stream=True, **more):
        ids.add(chunk.id)
        models.add(chunk.model)
        usage = chunk.usage or usage
        for choice in chunk.choices:
            text += choice.delta.content or ""
            if choice.finish_reason:
                finish.append(choice.finish_reason)
    return text, finish, usage, ids, models


def refused(param, error=BadRequestError, call=chat, **more):
    try:
        call(**more)
        check(f"{param} is refused", False)
    except error as e:
        check(f"{param} is refused by its name", (e.param, e.type), (param, "invalid_request_error"))


answer = chat(temperature=0, max_tokens=40)
check("it knows Paris", knows(answer.choices[0].message.content))
check("plain", (answer.choices[0].finish_reason, answer.model, answer.id.startswith("chatcmpl-")), ("stop", "smollm2", True))
text, finish, usage, ids, models = streamed(temperature=0, user="me")
check("streamed", (knows(text), finish, usage, models, "me" in ids), (True, ["stop"], None, {"smollm2"}, False))
text, finish, usage, _, _ = streamed(model="tiny", messages=count, max_tokens=5, stream_options={"include_usage": True})
check("max_tokens", (text, finish, usage.completion_tokens), (" 1 2 3 4 5", ["length"], 5))
check("max_tokens, plain", chat("tiny", count, max_tokens=5).choices[0].message.content, " 1 2 3 4 5")
check("to its end", streamed(model="tiny", messages=count)[1], ["stop"])
check("stop", streamed(model="tiny", messages=count, stop="5 6")[:2], (" 1 2 3 4 ", ["stop"]))
with client.chat.completions.stream(model="tiny", messages=count, stop=" 4") as stream:
    for _ in stream:
        pass
    check("stream helper", stream.get_final_completion().choices[0].finish_reason, "stop")
text = "".join(c.choices[0].text for c in client.completions.create(model="tiny", prompt="Hi", stream=True, stop=" 4"))
check("completion streamed", text.strip(), "1 2 3")
same = client.embeddings.create(model="smollm2", input=["A cat sat.", "b"])
check("vectors in base64", [len(d.embedding) for d in same.data], [384, 384])

refused("n", n=2)
refused("logprobs", logprobs=True)
refused("response_format", response_format={"type": "json_object"})
refused("model", error=NotFoundError, model="nobody")
refused("input", call=client.embeddings.create, model="smollm2", input=[1, -2, 3])
try:
    chat("tiny", [{"role": "user", "content": "word " * 3000}])
    check("too long", False)
except BadRequestError as e:
    check("too long", e.code, "context_length_exceeded")

for _ in range(2):  # a client that leaves frees the only slot
    stream = chat("smollm2", [{"role": "user", "content": "Tell me a long story about a lighthouse."}], stream=True)
    next(stream)
    stream.close()
begun = time.monotonic()
check("after clients that left", knows(chat(temperature=0, max_tokens=40).choices[0].message.content))

print(json.dumps({"checks": checks, "failed": failed, "after_leaving": time.monotonic() - begun}))
