#!/bin/sh
# wasmedge-debian.sh DIR: Debian's WasmEdge and llama.cpp's library with every library
# they need, in one folder, and the headers to build a plug-in of both in DIR/include.
. scripts/lib.sh

dir=$1
. scripts/debian.sh

unpacks WasmEdge wasmedge libllama0 -- libwasmedge-dev libllama-dev libggml-dev nlohmann-json3-dev
cp "$work/root/usr/bin/wasmedge" "$dir/"
copies_libraries
# These are asked for by names with two numbers; the names without are for linkers only,
# and would be second copies.
cp -L "$libraries"/libLLVM.so.*.* "$libraries"/libspdlog.so.*.* "$dir/"
rm -f "$dir"/libLLVM-*.so "$dir/libwasmedge.so" "$dir"/libllama*.so "$dir/libmtmd.so" "$dir/libggml.so" "$dir/libggml-base.so"
cp -r "$work/root/usr/include" "$dir/include"
sets_loader "$dir/wasmedge"
# libLLVM too: it says where to look itself, and so would not look here.
sets_library_path "$dir/wasmedge" "$dir"/libwasmedge.so* "$dir"/libLLVM.so* "$dir"/libllama*.so* "$dir"/libggml*.so*
finishes wasmedge libwasmedge0 libggml0 libllama0 nlohmann-json3-dev
