"""The cases of the client matrix by langchain-openai. Prints one line of JSON a case."""
import os
from typing import Annotated

import openai
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from pydantic import Field
from run import run

E = os.environ
COUNT, CHAT, TOOLS, EMBED = (E["ENGINE"] + "-" + kind for kind in ("count", "chat", "tools", "embed"))


def chat(model=COUNT, **more):
    return ChatOpenAI(model=model, base_url=E["BASE_URL"], api_key="unused", max_retries=0, **more)


@tool
def weather(city: Annotated[str, Field(max_length=8)]) -> str:
    """The weather in a city."""
    return "fine"


def stream():
    pieces = list(chat(max_tokens=7).stream("Count."))
    ends = [p.response_metadata["finish_reason"] for p in pieces if p.response_metadata.get("finish_reason")]
    return "".join(p.content for p in pieces), ends


def embed(**more):
    return [len(v) for v in OpenAIEmbeddings(model=EMBED, base_url=E["BASE_URL"], api_key="unused", max_retries=0, **more).embed_documents(["a", "b"])]


def embed_by_default():
    """By default it sends tokens of OpenAI's vocabulary. They are to mean what the text does."""
    both = [OpenAIEmbeddings(model=EMBED, base_url=E["BASE_URL"], api_key="unused", max_retries=0, check_embedding_ctx_length=tokens)
            .embed_query("The weather is fine, \u4f60\u597d.") for tokens in (True, False)]
    return max(abs(a - b) for a, b in zip(*both, strict=True)) < 1e-4


def refused():
    try:
        chat("nobody").invoke("x")
    except openai.NotFoundError as e:
        return e.param


run([
    ("plain", lambda: chat(max_tokens=5).invoke("Count.").content, " 1 2 3 4 5"),
    ("stream", stream, (" 1 2 3 4 5 6 7", ["length"])),
    ("stop", lambda: chat().invoke("Count.", stop=[" 4"]).content, " 1 2 3"),
    ("tools", lambda: [c["name"] for c in chat(TOOLS, max_tokens=200).bind_tools([weather], tool_choice=E["TOOL_CHOICE"]).invoke("use the tool").tool_calls], ["weather"]),
    ("no such model", refused, "model"),
    ("embeddings", lambda: embed(check_embedding_ctx_length=False), [384, 384]),
    ("embeddings in tokens", embed_by_default, True),
])
