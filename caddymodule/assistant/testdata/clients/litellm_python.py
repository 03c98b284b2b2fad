"""The cases of the client matrix by litellm. Prints one line of JSON a case."""
import os

import litellm
from run import run

E = os.environ
COUNT, CHAT, TOOLS, EMBED = (E["ENGINE"] + "-" + kind for kind in ("count", "chat", "tools", "embed"))
HERE = {"api_base": E["BASE_URL"], "api_key": "unused", "max_retries": 0}
count = [{"role": "user", "content": "Count."}]
weather = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {"city": {"type": "string", "maxLength": 8}}, "required": ["city"]}}}


def chat(model=COUNT, messages=count, **more):
    return litellm.completion("openai/" + model, messages, **HERE, **more)


def plain():
    answer = chat(max_tokens=5)
    return answer.choices[0].message.content, answer.choices[0].finish_reason, answer.usage.completion_tokens


def stream():
    text, ends = "", []
    for chunk in chat(max_tokens=7, stream=True):
        text += chunk.choices[0].delta.content or ""
        ends += [chunk.choices[0].finish_reason] if chunk.choices[0].finish_reason else []
    return text, ends


def tools():
    answer = chat(TOOLS, [{"role": "user", "content": "use the tool"}], tools=[weather], tool_choice=E["TOOL_CHOICE"], max_tokens=200).choices[0]
    return answer.finish_reason, answer.message.tool_calls[0].function.name


def messages():
    answer = litellm.completion("anthropic/" + COUNT, count, api_base=E["BASE_URL"].removesuffix("/v1"), api_key="unused", max_tokens=5)
    return answer.choices[0].message.content


def responses():
    answer = litellm.responses(model="openai/" + COUNT, input="Count.", max_output_tokens=5, **HERE)  # it sends 16, OpenAI's least
    return answer.output[-1].content[0].text


def refused():
    try:
        chat("nobody")
    except litellm.NotFoundError:
        return "NotFoundError"


run([
    ("plain", plain, (" 1 2 3 4 5", "length", 5)),
    ("stream", stream, (" 1 2 3 4 5 6 7", ["length"])),
    ("stop", lambda: chat(stop=[" 4"]).choices[0].message.content, " 1 2 3"),
    ("tools", tools, ("tool_calls", "weather")),
    ("embeddings", lambda: [len(d["embedding"]) for d in litellm.embedding("openai/" + EMBED, input=["a", "b"], **HERE).data], [384, 384]),
    ("by /v1/messages", messages, " 1 2 3 4 5"),
    ("by /v1/responses", responses, " 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16"),
    ("no such model", refused, "NotFoundError"),
])
