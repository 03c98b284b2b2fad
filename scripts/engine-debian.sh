#!/bin/sh
# engine-debian.sh DIR: Debian's llama.cpp with every library it needs, in one folder.
. scripts/lib.sh

dir=$1
. scripts/debian.sh

unpacks llama.cpp llama.cpp-tools
cp "$work"/root/usr/bin/llama-* "$dir/"
copies_libraries
cp -L "$libraries"/llama/*.so "$dir/"
sets_loader "$dir"/llama-*
sets_library_path "$dir"/llama-* "$dir"/libllama*.so* "$dir"/libggml*.so* "$dir"/libmtmd*.so*
finishes llama.cpp-tools libggml0 libllama0
