#!/usr/bin/env python3
"""make_tiny.py OUT.gguf: a 1 MB file in the form of a llama model that counts.

Its weights are set by hand so that it answers every chat with " 1 2 3 … 200" and stops,
a number a token, at any temperature: tests can tell from it whether a stream was cut,
doubled or put in another order. It is no model of language.
"""

import struct
import sys

import gguf

LAST = 200  # the number it stops after
WIDTH = 256  # of the embedding: one place for each state, so more than LAST
HEADS, KV_HEADS, FEED_FORWARD = 4, 1, 64
HEAD = WIDTH // HEADS

ROLES = ["<|system|>", "<|user|>", "<|assistant|>", "<|tool|>"]
UNKNOWN, BEGIN, END = 0, 1, 2
TEMPLATE = (
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def half(number):
    return struct.pack("<e", number)


def one_hot(place, number):
    return half(0) * place + half(number) + half(0) * (WIDTH - place - 1)


def zeros(columns, rows):
    return (columns, rows), gguf.TENSOR_F16, half(0) * (columns * rows)


def main(path):
    tokens = ["<unk>", "<s>", "</s>"] + [f"<0x{byte:02X}>" for byte in range(256)] + ROLES
    types = [gguf.UNKNOWN, gguf.CONTROL, gguf.CONTROL] + [gguf.BYTE] * 256 + [gguf.CONTROL] * len(ROLES)
    first = len(tokens)  # the token of the number 1
    tokens += [f"\u2581{number}" for number in range(1, LAST + 1)]
    types += [gguf.NORMAL] * LAST

    # A token leaves a state behind: the number k leaves k, anything else 0. The output
    # layer leads from state k to the number k+1, and from the last to the end.
    embedding = b"".join(one_hot(max(0, token - first + 1), 1) for token in range(len(tokens)))
    output = [half(0) * WIDTH] * len(tokens)
    for state in range(LAST):
        output[first + state] = one_hot(state, 2)
    output[END] = one_hot(LAST, 2)

    out = gguf.Writer()
    out.add("general.architecture", gguf.STRING, "llama")
    out.add("general.name", gguf.STRING, "tiny-counter")
    out.add("general.file_type", gguf.U32, 1)
    for key, number in {
        "vocab_size": len(tokens),
        "context_length": 8192,
        "embedding_length": WIDTH,
        "block_count": 1,
        "feed_forward_length": FEED_FORWARD,
        "attention.head_count": HEADS,
        "attention.head_count_kv": KV_HEADS,
        "rope.dimension_count": HEAD,
    }.items():
        out.add(f"llama.{key}", gguf.U32, number)
    out.add("llama.attention.layer_norm_rms_epsilon", gguf.F32, 1e-5)
    out.add("tokenizer.ggml.model", gguf.STRING, "llama")
    out.add("tokenizer.ggml.pre", gguf.STRING, "default")
    out.add_array("tokenizer.ggml.tokens", gguf.STRING, tokens)
    out.add_array("tokenizer.ggml.scores", gguf.F32, [-float(token) for token in range(len(tokens))])
    out.add_array("tokenizer.ggml.token_type", gguf.I32, types)
    out.add("tokenizer.ggml.bos_token_id", gguf.U32, BEGIN)
    out.add("tokenizer.ggml.eos_token_id", gguf.U32, END)
    out.add("tokenizer.ggml.unknown_token_id", gguf.U32, UNKNOWN)
    out.add("tokenizer.ggml.add_bos_token", gguf.BOOL, True)
    out.add("tokenizer.chat_template", gguf.STRING, TEMPLATE)

    # The one layer between does nothing: its weights are zero, and what it adds is too.
    ones = (WIDTH,), gguf.TENSOR_F32, struct.pack("<f", 1) * WIDTH
    for name, (dimensions, kind, data) in {
        "token_embd": ((WIDTH, len(tokens)), gguf.TENSOR_F16, embedding),
        "output_norm": ones,
        "output": ((WIDTH, len(tokens)), gguf.TENSOR_F16, b"".join(output)),
        "blk.0.attn_norm": ones,
        "blk.0.ffn_norm": ones,
        "blk.0.attn_q": zeros(WIDTH, WIDTH),
        "blk.0.attn_k": zeros(WIDTH, HEAD * KV_HEADS),
        "blk.0.attn_v": zeros(WIDTH, HEAD * KV_HEADS),
        "blk.0.attn_output": zeros(WIDTH, WIDTH),
        "blk.0.ffn_gate": zeros(WIDTH, FEED_FORWARD),
        "blk.0.ffn_up": zeros(WIDTH, FEED_FORWARD),
        "blk.0.ffn_down": zeros(FEED_FORWARD, WIDTH),
    }.items():
        out.add_tensor(f"{name}.weight", dimensions, kind, len(data), [data])
    out.write(path)


if __name__ == "__main__":
    main(sys.argv[1])
