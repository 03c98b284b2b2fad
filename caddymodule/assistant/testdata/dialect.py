"""The official client on an engine with a dialect: what it makes of each answer. Prints one line of JSON: what failed."""
import json
import os

from openai import BadRequestError, NotFoundError, OpenAI

client = OpenAI(base_url=os.environ["BASE_URL"], api_key="unused", max_retries=0)
hi = [{"role": "user", "content": "Hi"}]
weather = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}}
failed, checks = [], 0


def check(what, got, want):
    global checks
    checks += 1
    if got != want:
        failed.append(f"{what}: got {got!r}, want {want!r}")


def chat(**more):
    return client.chat.completions.create(**{"model": "m", "messages": hi, **more})


def streamed(**more):
    """Text, finish_reasons, tool names, usage and distinct ids of a stream."""
    text, finish, tools, usage, ids = "", [], [], None, set()
    for chunk in chat(stream=True, **more):
        ids.add(chunk.id)
        usage = chunk.usage or usage
        for choice in chunk.choices:
            text += choice.delta.content or ""
            tools += [call.function.name for call in choice.delta.tool_calls or []]
            if choice.finish_reason:
                finish.append(choice.finish_reason)
    return text, finish, tools, usage, ids


def refused(param, error=BadRequestError, call=chat, **more):
    try:
        call(**more)
        check(f"{param} is refused", False, True)
    except error as e:
        check(f"{param} is refused by its name", (e.param, e.type), (param, "invalid_request_error"))


whole = chat(max_tokens=5)
check("plain text", whole.choices[0].message.content, " 1 2 3 4 5")
check("plain finish_reason", whole.choices[0].finish_reason, "length")
check("plain model", whole.model, "m")
check("plain usage", whole.usage.completion_tokens, 5)
check("plain id", whole.id.startswith("chatcmpl-"), True)
check("plain to its end", chat().choices[0].finish_reason, "stop")

text, finish, _, usage, ids = streamed(max_completion_tokens=150)
check("streamed text", text, "".join(f" {i}" for i in range(1, 151)))
check("streamed finish_reason", finish, ["length"])
check("usage not asked for", usage, None)
check("one id", len(ids), 1)
text, finish, _, usage, _ = streamed(stream_options={"include_usage": True}, user="me")
check("streamed to its end", (text.split()[-1], finish), ("200", ["stop"]))
check("usage asked for", usage.completion_tokens, 200)
check("stop", streamed(stop="5 6")[:2], (" 1 2 3 4 ", ["stop"]))
check("stop array", chat(stop=["x", " 3"]).choices[0].message.content, " 1 2")
with client.chat.completions.stream(model="bare", messages=hi, stop=" 4") as stream:
    for _ in stream:
        pass
    check("stream helper", stream.get_final_completion().choices[0].finish_reason, "stop")

use = [{"role": "system", "content": [{"type": "text", "text": "Be brief."}]}, {"role": "user", "content": "use the tool"}]
call = chat(messages=use, tools=[weather]).choices[0]
check("tool called", (call.finish_reason, call.message.tool_calls[0].function.name), ("tool_calls", "weather"))
check("tool called in a stream", streamed(messages=use, tools=[weather])[1:3], (["tool_calls"], ["weather"]))
check("tool not called", streamed(tools=[weather])[1:3], (["stop"], []))
check("ignored if it may be", chat(n=2, max_tokens=1, extra_body={"drop_params": True}).choices[0].message.content, " 1")
text = "".join(c.choices[0].text for c in client.completions.create(model="m", prompt="Hi", stream=True, stop=" 4"))
check("completion streamed", text, "1 2 3")

refused("n", n=2)
refused("logprobs", logprobs=True)
refused("response_format", response_format={"type": "json_object"})
refused("tools", model="bare", tools=[weather])
refused("messages", messages=[{"role": "user", "content": "word " * 600}])
refused("model", error=NotFoundError, model="nobody")
refused("input", call=client.embeddings.create, model="e", input=[1, -2, 3])
check("vectors", [len(d.embedding) for d in client.embeddings.create(model="e", input=["a", "b"]).data], [384, 384])

print(json.dumps({"checks": checks, "failed": failed}))
