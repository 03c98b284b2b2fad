#!/usr/bin/env python3
"""minilm2gguf.py MODEL_DIR OUT.gguf: a sentence-embedding BERT (safetensors in 32 bits and
tokenizer.json, as sentence-transformers has them) as GGUF, in 32 bits."""

import json
import os
import struct
import sys

import gguf

# Where each tensor of a transformer layer goes: BERT's name, llama.cpp's name.
LAYER = {
    "attention.self.query": "attn_q",
    "attention.self.key": "attn_k",
    "attention.self.value": "attn_v",
    "attention.output.dense": "attn_output",
    "attention.output.LayerNorm": "attn_output_norm",
    "intermediate.dense": "ffn_up",
    "output.dense": "ffn_down",
    "output.LayerNorm": "layer_output_norm",
}
EMBEDDINGS = {
    "embeddings.word_embeddings.weight": "token_embd.weight",
    "embeddings.position_embeddings.weight": "position_embd.weight",
    "embeddings.token_type_embeddings.weight": "token_types.weight",
    "embeddings.LayerNorm.weight": "token_embd_norm.weight",
    "embeddings.LayerNorm.bias": "token_embd_norm.bias",
}
SPECIAL = {
    "unknown": "[UNK]",
    "seperator": "[SEP]",  # spelt so in GGUF
    "padding": "[PAD]",
    "cls": "[CLS]",
    "mask": "[MASK]",
    "bos": "[CLS]",
    "eos": "[SEP]",
}
MEAN_POOLING = 1


def load_json(directory, name):
    with open(os.path.join(directory, name), encoding="utf-8") as file:
        return json.load(file)


def add_settings(out, config):
    out.add("general.architecture", gguf.STRING, "bert")
    out.add("general.name", gguf.STRING, "all-MiniLM-L6-v2")
    out.add("general.file_type", gguf.U32, 0)
    out.add("bert.block_count", gguf.U32, config["num_hidden_layers"])
    out.add("bert.context_length", gguf.U32, config["max_position_embeddings"])
    out.add("bert.embedding_length", gguf.U32, config["hidden_size"])
    out.add("bert.feed_forward_length", gguf.U32, config["intermediate_size"])
    out.add("bert.attention.head_count", gguf.U32, config["num_attention_heads"])
    out.add("bert.attention.layer_norm_epsilon", gguf.F32, config["layer_norm_eps"])
    out.add("bert.attention.causal", gguf.BOOL, False)
    out.add("bert.pooling_type", gguf.U32, MEAN_POOLING)


def add_tokenizer(out, tokenizer, type_vocab_size):
    vocabulary = tokenizer["model"]["vocab"]
    special = {token["id"] for token in tokenizer["added_tokens"] if token.get("special")}

    def spelt(token, number):
        # WordPiece marks what continues a word, llama.cpp what begins one.
        if number in special or (token.startswith("[") and token.endswith("]")):
            return token
        return token[2:] if token.startswith("##") else "\u2581" + token

    tokens = [None] * len(vocabulary)
    for token, number in vocabulary.items():
        tokens[number] = spelt(token, number)
    types = [gguf.CONTROL if number in special else gguf.NORMAL for number in range(len(tokens))]

    out.add("tokenizer.ggml.model", gguf.STRING, "bert")
    out.add("tokenizer.ggml.pre", gguf.STRING, "default")
    out.add_array("tokenizer.ggml.tokens", gguf.STRING, tokens)
    out.add_array("tokenizer.ggml.token_type", gguf.I32, types)
    out.add_array("tokenizer.ggml.scores", gguf.F32, [-1000.0] * len(tokens))
    out.add("tokenizer.ggml.token_type_count", gguf.U32, type_vocab_size)
    for role, token in SPECIAL.items():
        out.add(f"tokenizer.ggml.{role}_token_id", gguf.U32, vocabulary[token])


def add_tensors(out, file, layers):
    length = struct.unpack("<Q", file.read(8))[0]
    header = json.loads(file.read(length))
    names = dict(EMBEDDINGS)
    for layer in range(layers):
        for theirs, ours in LAYER.items():
            for part in ("weight", "bias"):
                names[f"encoder.layer.{layer}.{theirs}.{part}"] = f"blk.{layer}.{ours}.{part}"

    def data(begin, end):
        file.seek(8 + length + begin)
        yield file.read(end - begin)

    for theirs, ours in names.items():
        tensor = header.get(theirs) or header["bert." + theirs]
        if tensor["dtype"] != "F32":
            sys.exit(f"{theirs} is {tensor['dtype']}, only F32 is known")
        begin, end = tensor["data_offsets"]
        out.add_tensor(ours, tensor["shape"][::-1], gguf.TENSOR_F32, end - begin, data(begin, end))


def main(directory, path):
    config = load_json(directory, "config.json")
    out = gguf.Writer()
    add_settings(out, config)
    add_tokenizer(out, load_json(directory, "tokenizer.json"), config["type_vocab_size"])
    with open(os.path.join(directory, "model.safetensors"), "rb") as file:
        add_tensors(out, file, config["num_hidden_layers"])
        out.write(path)


if __name__ == "__main__":
    main(*sys.argv[1:])
