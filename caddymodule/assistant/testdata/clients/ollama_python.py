"""The cases of the client matrix by ollama. Prints one line of JSON a case."""
import json
import os

import ollama
from run import run

E = os.environ
client = ollama.Client(host=E["BASE_URL"].removesuffix("/v1"))
COUNT, CHAT, TOOLS, EMBED = (E["ENGINE"] + "-" + kind for kind in ("count", "chat", "tools", "embed"))
count = [{"role": "user", "content": "Count."}]
weather = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}}}


def chat(model=COUNT, messages=count, limit=5, options=None, **more):
    return client.chat(model, messages, options={"num_predict": limit, **(options or {})}, **more)


def plain():
    answer = chat()
    return answer.message.content, answer.done_reason, answer.model, answer.eval_count


def stream():
    pieces = list(chat(limit=7, stream=True))
    return "".join(p.message.content for p in pieces), pieces[-1].done_reason, [p.done for p in pieces].count(True)


def tools():
    calls = chat(TOOLS, [{"role": "user", "content": "use the tool"}], 200, tools=[weather]).message.tool_calls
    return calls[0].function.name, type(calls[0].function.arguments).__name__


def schema():
    wanted = {"type": "object", "properties": {"a": {"type": "boolean"}}, "required": ["a"], "additionalProperties": False}
    return json.loads(chat(CHAT, limit=200, format=wanted).message.content).keys() == {"a"}


def loads():
    loaded = client.generate(COUNT).done_reason
    running = COUNT + ":latest" in [m.model for m in client.ps().models]
    return loaded, running


def pulled():
    source = E["PULL"]
    last = list(client.pull(source, stream=True))[-1].status
    text = chat(source, limit=5).message.content
    deleted = client.delete(source).status
    return last, text, deleted, refused(lambda: chat(source))


def refused(error):
    try:
        error()
    except ollama.ResponseError as e:
        return e.status_code


CASES = [
    ("plain", plain, (" 1 2 3 4 5", "length", COUNT, 5)),
    ("stream", stream, (" 1 2 3 4 5 6 7", "length", 1)),
    ("stop", lambda: chat(limit=50, options={"stop": [" 4"]}).message.content, " 1 2 3"),
    ("generate", lambda: client.generate(COUNT, "Count.", options={"num_predict": 5}).response, " 1 2 3 4 5"),
    ("embed", lambda: [len(v) for v in client.embed(EMBED, ["a", "b"]).embeddings], [384, 384]),
    ("embeddings", lambda: len(client.embeddings(EMBED, "a").embedding), 384),
    ("list", lambda: COUNT + ":latest" in [m.model for m in client.list().models], True),
    ("show", lambda: "completion" in client.show(COUNT).capabilities, True),
    ("pull and delete", pulled, ("success", " 1 2 3 4 5", "success", 404)),
    ("load and ps", loads, ("load", True)),
    ("no such model", lambda: refused(lambda: chat("nobody")), 404),
    ("wrong request", lambda: refused(lambda: client.generate(COUNT, "x", template="y")), 400),
]
if E["TOOL_CHOICE"] == "auto":  # Ollama has no way to ask for a call
    CASES.append(("tools", tools, ("weather", "dict")))
if E["SCHEMA"] == "1":
    CASES.append(("schema", schema, True))
run(CASES)
