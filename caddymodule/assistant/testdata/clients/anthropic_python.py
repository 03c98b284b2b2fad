"""The cases of the client matrix by anthropic. Prints one line of JSON a case."""
import os

import anthropic
from run import run

E = os.environ
client = anthropic.Anthropic(base_url=E["BASE_URL"].removesuffix("/v1"), api_key="unused", max_retries=0)
COUNT, TOOLS = (E["ENGINE"] + "-" + kind for kind in ("count", "tools"))
count = [{"role": "user", "content": "Count."}]
weather = {"name": "weather", "input_schema": {"type": "object", "properties": {"city": {"type": "string", "maxLength": 8}}, "required": ["city"]}}
CHOICE = {"type": {"auto": "auto", "required": "any"}[E["TOOL_CHOICE"]]}


def ask(model=COUNT, messages=count, max_tokens=5, **more):
    return client.messages.create(model=model, messages=messages, max_tokens=max_tokens, **more)


def plain():
    answer = ask()
    return answer.content[0].text, answer.stop_reason, answer.model, answer.usage.output_tokens


def stream():
    with client.messages.stream(model=COUNT, messages=count, max_tokens=7) as events:
        text = "".join(events.text_stream)
        return text, events.get_final_message().stop_reason


def tools():
    answer = ask(TOOLS, [{"role": "user", "content": "use the tool"}], 200, tools=[weather], tool_choice=CHOICE)
    return answer.stop_reason, [b.name for b in answer.content if b.type == "tool_use"]


def refused(error, **more):
    try:
        ask(**more)
        return "answered"
    except error as e:
        return type(e).__name__, e.body["error"]["type"]


run([
    ("plain", plain, (" 1 2 3 4 5", "max_tokens", COUNT, 5)),
    ("stream", stream, (" 1 2 3 4 5 6 7", "max_tokens")),
    ("stop", lambda: ask(max_tokens=50, stop_sequences=[" 4"]).content[0].text, " 1 2 3"),
    ("system", lambda: ask(system="Be brief.").content[0].text, " 1 2 3 4 5"),
    ("tools", tools, ("tool_use", ["weather"])),
    ("count_tokens", lambda: client.messages.count_tokens(model=COUNT, messages=count).input_tokens > 0, True),
    ("no such model", lambda: refused(anthropic.NotFoundError, model="nobody"), ("NotFoundError", "not_found_error")),
    ("wrong request", lambda: refused(anthropic.BadRequestError, messages=[]), ("BadRequestError", "invalid_request_error")),
])
