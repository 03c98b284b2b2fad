#!/usr/bin/env python3
"""Records what a real llama-server answers with and without "stream", as goldens for join_test.go.

usage: record.py tiny=URL smol=URL tools=URL
  tiny   a llama-server with the tests' synthetic model
  smol   one with SmolLM2-135M-Instruct
  tools  the same with --jinja --chat-template-file testdata/tools.jinja

Writes join/NAME.request.json, NAME.sse and NAME.plain.json beside this file. Every request asks for
temperature 0 and no prompt cache, so that both answers are the same text and the same counts.
"""
import json
import pathlib
import sys
import urllib.error
import urllib.request

CHAT, COMPLETION = "/v1/chat/completions", "/v1/completions"
FRANCE = [{"role": "user", "content": "What is the capital of France?"}]
WEATHER = {"type": "function", "function": {
    "name": "get_weather", "description": "The weather of a city",
    "parameters": {"type": "object", "properties": {"city": {"type": "string", "maxLength": 12}}, "required": ["city"]}}}
TIME = {"type": "function", "function": {
    "name": "get_time", "parameters": {"type": "object", "properties": {"zone": {"enum": ["CET", "UTC"]}}, "required": ["zone"]}}}
SHOTS = [message for city in ("Rome", "Oslo", "Bern", "Wien") for message in (
    {"role": "user", "content": "weather " + city},
    {"role": "assistant", "content": None, "tool_calls": [{"id": "call1", "type": "function", "function": {
        "name": "get_weather", "arguments": json.dumps({"city": city})}}]},
    {"role": "tool", "tool_call_id": "call1", "content": "sunny"},
    {"role": "assistant", "content": "Sunny."})] + [{"role": "user", "content": "weather Kiel"}]
TWICE = [message for one, two in (("Rome", "Oslo"), ("Bern", "Wien"), ("Bonn", "Prag")) for message in (
    {"role": "user", "content": f"weather {one} and {two}"},
    {"role": "assistant", "content": None, "tool_calls": [{"id": "call" + city, "type": "function", "function": {
        "name": "get_weather", "arguments": json.dumps({"city": city})}} for city in (one, two)]},
    {"role": "tool", "tool_call_id": "call" + one, "content": "sunny"},
    {"role": "tool", "tool_call_id": "call" + two, "content": "sunny"},
    {"role": "assistant", "content": "Sunny."})] + [{"role": "user", "content": "weather Kiel and Lima"}]
SCHEMA = {"type": "json_schema", "json_schema": {"name": "city", "strict": True, "schema": {
    "type": "object", "properties": {"city": {"enum": ["Paris", "Rome"]}, "big": {"type": "boolean"}},
    "required": ["city", "big"], "additionalProperties": False}}}


def grammar(text):
    return "root ::= " + json.dumps(text, ensure_ascii=False)


CASES = [
    ("chat_tiny", "tiny", CHAT, {"messages": FRANCE}),
    ("chat_length", "tiny", CHAT, {"messages": FRANCE, "max_tokens": 5}),
    ("chat_stop_word", "tiny", CHAT, {"messages": FRANCE, "stop": [" 7 8"]}),
    ("chat_stop_at_once", "tiny", CHAT, {"messages": FRANCE, "stop": [" 1"]}),
    ("chat_one_token", "tiny", CHAT, {"messages": FRANCE, "max_tokens": 1}),
    ("chat_zero_tokens", "tiny", CHAT, {"messages": FRANCE, "max_tokens": 0}),
    ("chat_completion_tokens", "tiny", CHAT, {"messages": FRANCE, "max_completion_tokens": 3}),
    ("chat_include_usage", "tiny", CHAT, {"messages": FRANCE, "max_tokens": 3, "stream_options": {"include_usage": True}}),
    ("chat_smol", "smol", CHAT, {"messages": FRANCE, "seed": 1, "max_tokens": 40}),
    ("chat_schema", "smol", CHAT, {"messages": FRANCE, "response_format": SCHEMA, "max_tokens": 60}),
    ("chat_json_object", "smol", CHAT, {"messages": FRANCE, "response_format": {"type": "json_object"}, "max_tokens": 30}),
    ("chat_escapes", "smol", CHAT, {"messages": FRANCE, "grammar": grammar("a\"b\\c\n\t<&>é😀\u2028 end")}),
    ("chat_cut_emoji", "smol", CHAT, {"messages": FRANCE, "grammar": grammar("hi 😀🇫🇷"), "max_tokens": 3}),
    ("chat_blank", "smol", CHAT, {"messages": FRANCE, "grammar": grammar("  \n")}),
    ("chat_prefill", "smol", CHAT, {"messages": FRANCE + [{"role": "assistant", "content": "The capital"}], "max_tokens": 12}),
    ("chat_reasoning", "tools", CHAT, {"messages": FRANCE, "grammar": grammar("<think>\nIt is in Europe.\n</think>\n\nParis, of course.")}),
    ("chat_reasoning_cut", "tools", CHAT, {"messages": FRANCE, "grammar": grammar("<think>\nIt is in Europe and big.\n</think>\n\nParis."), "max_tokens": 6}),
    ("chat_reasoning_none", "tools", CHAT, {"messages": FRANCE, "reasoning_format": "none", "grammar": grammar("<think>\nHm.\n</think>\n\nParis.")}),
    ("chat_tool", "tools", CHAT, {"messages": FRANCE, "tools": [WEATHER], "tool_choice": "required", "max_tokens": 120}),
    ("chat_tool_cut", "tools", CHAT, {"messages": FRANCE, "tools": [WEATHER], "tool_choice": "required", "max_tokens": 18}),
    ("chat_tool_only", "tools", CHAT, {"messages": SHOTS, "tools": [WEATHER], "max_tokens": 60}),
    ("chat_tool_cut_in_arguments", "tools", CHAT, {"messages": SHOTS, "tools": [WEATHER], "max_tokens": 22}),
    ("chat_tool_two", "tools", CHAT, {"messages": TWICE, "tools": [WEATHER], "parallel_tool_calls": True, "max_tokens": 80}),
    ("chat_tool_cut_at_once", "tools", CHAT, {"messages": SHOTS, "tools": [WEATHER], "max_tokens": 4}),
    ("chat_tool_parallel", "tools", CHAT, {"messages": FRANCE, "tools": [TIME, WEATHER], "tool_choice": "required", "parallel_tool_calls": True, "max_tokens": 90}),
    ("chat_tool_auto", "tools", CHAT, {"messages": FRANCE, "tools": [WEATHER], "max_tokens": 30}),
    ("chat_tool_none", "tools", CHAT, {"messages": FRANCE, "tools": [WEATHER], "tool_choice": "none", "max_tokens": 20}),
    ("completion_tiny", "tiny", COMPLETION, {"prompt": "count:"}),
    ("completion_length", "tiny", COMPLETION, {"prompt": "count:", "max_tokens": 5}),
    ("completion_stop_word", "tiny", COMPLETION, {"prompt": "count:", "stop": " 7 8"}),
    ("completion_zero_tokens", "tiny", COMPLETION, {"prompt": "count:", "max_tokens": 0}),
    ("completion_include_usage", "tiny", COMPLETION, {"prompt": "count:", "max_tokens": 3, "stream_options": {"include_usage": True}}),
    ("completion_smol", "smol", COMPLETION, {"prompt": "Once upon a time", "seed": 1, "max_tokens": 30}),
    ("completion_cut_emoji", "smol", COMPLETION, {"prompt": "x", "grammar": grammar("hi 😀🇫🇷"), "max_tokens": 3}),
]


def ask(url, body):
    data = json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=300) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as err:
        return err.code, err.read()


def main():
    servers = dict(arg.split("=", 1) for arg in sys.argv[1:])
    folder = pathlib.Path(__file__).parent / "join"
    for name, server, path, body in CASES:
        body = {"model": server, **body, "temperature": 0, "cache_prompt": False}
        plain_status, plain = ask(servers[server] + path, body)
        options = {**body.get("stream_options", {}), "include_usage": True}
        status, stream = ask(servers[server] + path, {**body, "stream": True, "stream_options": options})
        print(f"{name}: {plain_status} {len(plain)} bytes, {status} {len(stream)} bytes")
        if plain_status != 200 or status != 200:
            print(plain.decode(), stream.decode())
            sys.exit(1)
        request = {"path": path, "body": body}
        (folder / f"{name}.request.json").write_text(json.dumps(request, indent=1, ensure_ascii=False) + "\n")
        (folder / f"{name}.plain.json").write_bytes(plain)
        (folder / f"{name}.sse").write_bytes(stream)


main()
