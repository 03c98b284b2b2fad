"""The cases of the client matrix by openai-python. Prints one line of JSON a case."""
import json
import os

import openai
from run import run

E = os.environ
client = openai.OpenAI(base_url=E["BASE_URL"], api_key="unused", max_retries=0)
COUNT, CHAT, TOOLS, EMBED = (E["ENGINE"] + "-" + kind for kind in ("count", "chat", "tools", "embed"))
count = [{"role": "user", "content": "Count."}]
weather = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {"city": {"type": "string", "maxLength": 8}}, "required": ["city"]}}}


def chat(model=COUNT, messages=count, **more):
    return client.chat.completions.create(model=model, messages=messages, **more)


def streamed(**more):
    text, finish, usages = "", [], 0
    for chunk in chat(stream=True, **more):
        usages += chunk.usage is not None
        for choice in chunk.choices:
            text += choice.delta.content or ""
            finish += [choice.finish_reason] if choice.finish_reason else []
    return text, finish, usages


def plain():
    answer = chat(max_tokens=5)
    return answer.choices[0].message.content, answer.choices[0].finish_reason, answer.model, answer.usage.completion_tokens


def helper():
    with client.chat.completions.stream(model=COUNT, messages=count, stop=" 4") as events:  # it raises where max_tokens ended the answer
        for _ in events:
            pass
        return events.get_final_completion().choices[0].finish_reason


def tools():
    answer = chat(TOOLS, [{"role": "user", "content": "use the tool"}], tools=[weather], tool_choice=E["TOOL_CHOICE"], max_tokens=200).choices[0]
    return answer.finish_reason, answer.message.tool_calls[0].function.name


def refused(error, **more):
    try:
        chat(**more)
        return "answered"
    except error as e:
        return type(e).__name__, e.param
    except Exception as e:  # the wrong one
        return type(e).__name__, str(e)


def schema():
    wanted = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object", "properties": {"a": {"type": "boolean"}}, "required": ["a"], "additionalProperties": False}}}
    if E["SCHEMA"] != "1":
        return refused(openai.BadRequestError, response_format=wanted)
    return list(json.loads(chat(CHAT, response_format=wanted, max_tokens=200).choices[0].message.content))


def leaves():
    for _ in range(2):
        stream = chat(stream=True)
        next(iter(stream))
        stream.close()
    return chat(max_tokens=2).choices[0].message.content


def respond(**more):
    return client.responses.create(model=COUNT, input="Count.", **more)


def respond_stream():
    text, last = "", None
    for event in respond(max_output_tokens=7, stream=True):
        text += event.delta if event.type == "response.output_text.delta" else ""
        last = event.type
    return text, last


def stored():
    first = respond(max_output_tokens=5)
    again = client.responses.retrieve(first.id)
    respond(max_output_tokens=5, previous_response_id=first.id)
    asked = client.responses.input_items.list(first.id).data[0].content[0].text
    client.responses.delete(first.id)
    try:
        client.responses.retrieve(first.id)
    except openai.NotFoundError:
        return again.output_text, again.status, asked


def respond_tools():
    tool = {"type": "function", **weather["function"], "strict": False}
    answer = client.responses.create(model=TOOLS, input="use the tool", tools=[tool], tool_choice=E["TOOL_CHOICE"], max_output_tokens=200)
    return [item.name for item in answer.output if item.type == "function_call"]


def cold(model, how):
    """What a model that is not loaded answers to a stream that is told what it waits for."""
    unload = client.with_options(base_url=E["BASE_URL"].removesuffix("/v1"))
    unload.post("/models/unload", body={"model": model}, cast_to=object)
    text, thought = "", ""
    for chunk in chat(model, stream=True, max_tokens=3, extra_headers={"X-Assistant-Progress": how}):
        for choice in chunk.choices:
            text += choice.delta.content or ""
            thought += getattr(choice.delta, "reasoning_content", None) or ""
    return text, "is loading" in thought


def passed_on():
    """What the fake engine was asked: it repeats requests to these models."""
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}
    sound = {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}
    seen = client.chat.completions.with_raw_response.create(model="fake-echo", messages=[{"role": "user", "content": [picture, sound]}])
    heard = client.audio.transcriptions.with_raw_response.create(model="fake-ear", file=("a.wav", b"RIFF" * 50000))
    told = client.audio.translations.with_raw_response.create(model="fake-ear", file=("a.wav", b"RIFF"))
    said = client.audio.speech.create(model="fake-mouth", voice="x", input="Hi").read()
    drawn = client.images.with_raw_response.generate(model="fake-hand", prompt="a cat")
    echoes = [json.loads(e.text if isinstance(e.text, str) else e.text()) for e in (seen, heard, told, drawn)] + [json.loads(said)]
    asked = json.loads(echoes[0]["body"])["messages"][0]["content"]
    return [e["path"] for e in echoes], asked == [picture, sound], echoes[1]["body_size"] > 200000


run([
    ("plain", plain, (" 1 2 3 4 5", "length", COUNT, 5)),
    ("stream", lambda: streamed(max_tokens=7), (" 1 2 3 4 5 6 7", ["length"], 0)),
    ("stream to its end", lambda: streamed()[1], ["stop"]),
    ("stream helper", helper, "stop"),
    ("usage", lambda: streamed(max_tokens=2, stream_options={"include_usage": True})[2], 1),
    ("stop", lambda: streamed(stop=" 4")[:2], (" 1 2 3", ["stop"])),
    ("stop array", lambda: chat(stop=["x", " 3"]).choices[0].message.content, " 1 2"),
    ("parts", lambda: chat(messages=[{"role": "user", "content": [{"type": "text", "text": "Count."}]}], max_tokens=2).choices[0].message.content, " 1 2"),
    ("tools", tools, ("tool_calls", "weather")),
    ("json_schema", schema, ["a"] if E["SCHEMA"] == "1" else ("BadRequestError", "response_format")),
    ("no such model", lambda: refused(openai.NotFoundError, model="nobody"), ("NotFoundError", "model")),
    ("wrong request", lambda: refused(openai.BadRequestError, messages="x")[0], "BadRequestError"),
    ("embeddings", lambda: [len(d.embedding) for d in client.embeddings.create(model=EMBED, input=["a", "b"]).data], [384, 384]),
    ("models", lambda: COUNT in [m.id for m in client.models.list()], True),
    ("client leaves", leaves, " 1 2"),
    ("responses", lambda: respond(max_output_tokens=5).output_text, " 1 2 3 4 5"),
    ("responses: stream", respond_stream, (" 1 2 3 4 5 6 7", "response.incomplete")),
    ("responses: stored", stored, (" 1 2 3 4 5", "incomplete", "Count.")),
    ("responses: tools", respond_tools, ["weather"]),
    ("waits, comments", lambda: cold("fake-slow", "comments"), (" 1 2 3", False)),
    ("waits, reasoning", lambda: cold("fake-slow", "reasoning"), (" 1 2 3", True)),
] + ([
    ("passed on", passed_on, (
        ["/v1/chat/completions", "/v1/audio/transcriptions", "/v1/audio/translations", "/v1/images/generations", "/v1/audio/speech"], True, True)),
] if E["ENGINE"] == "fake" else []))
