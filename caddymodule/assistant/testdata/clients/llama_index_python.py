"""The cases of the client matrix by LlamaIndex's OpenAI-like model and embeddings. Prints one line of JSON a case."""
import asyncio
import os

import openai
from llama_index.core import Document, VectorStoreIndex
from llama_index.core.llms import ChatMessage
from llama_index.core.tools import FunctionTool
from llama_index.embeddings.openai_like import OpenAILikeEmbedding
from llama_index.llms.openai_like import OpenAILike
from run import run

E = os.environ
COUNT, CHAT, TOOLS, EMBED = (E["ENGINE"] + "-" + kind for kind in ("count", "chat", "tools", "embed"))
QUESTION = [ChatMessage(role="user", content="Count.")]


def llm(model=COUNT, **more):
    return OpenAILike(model=model, api_base=E["BASE_URL"], api_key="unused", max_retries=0, is_chat_model=True, is_function_calling_model=True,
                      context_window=2048, **more)


def embedding():
    return OpenAILikeEmbedding(model_name=EMBED, api_base=E["BASE_URL"], api_key="unused", max_retries=0)


def weather(city: str) -> str:
    """The weather in a city."""
    return "fine"


def tools():
    answer = llm(TOOLS, max_tokens=200).chat_with_tools(
        [FunctionTool.from_defaults(weather)], user_msg="use the tool", tool_choice=E["TOOL_CHOICE"])
    return [call["function"]["name"] if isinstance(call, dict) else call.function.name for call in answer.message.additional_kwargs.get("tool_calls", [])]


def retrieved():
    """What of two documents is nearer to a question, and whether the model was given it."""
    index = VectorStoreIndex.from_documents(
        [Document(text="The cat is called Tom."), Document(text="Paris is the capital of France.")], embed_model=embedding())
    answer = index.as_query_engine(llm=llm(CHAT, max_tokens=10), similarity_top_k=1).query("What is the cat called?")
    return [node.text for node in answer.source_nodes], bool(str(answer))


def refused():
    try:
        llm("nobody").complete("x")
    except openai.NotFoundError as e:
        return e.param


run([
    ("plain", lambda: llm(max_tokens=5).chat(QUESTION).message.content, " 1 2 3 4 5"),
    ("complete", lambda: llm(max_tokens=5).complete("Count.").text, " 1 2 3 4 5"),
    ("stream", lambda: "".join(piece.delta or "" for piece in llm(max_tokens=7).stream_chat(QUESTION)), " 1 2 3 4 5 6 7"),
    ("async", lambda: asyncio.run(llm(max_tokens=5).achat(QUESTION)).message.content, " 1 2 3 4 5"),
    ("stop", lambda: llm().chat(QUESTION, stop=[" 4"]).message.content, " 1 2 3"),
    ("tools", tools, ["weather"]),
    ("no such model", refused, "model"),
    ("embeddings", lambda: [len(v) for v in embedding().get_text_embedding_batch(["a", "b"])], [384, 384]),
    ("retrieval", retrieved, (["The cat is called Tom."], True)),
])
