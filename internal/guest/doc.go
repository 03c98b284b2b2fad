// Package guest is the router's side of what a guest in WasmEdge speaks over its stdin and stdout instead of HTTP: it makes
// a server of it. The guest's side is engines/assistant-guest; docs/wasm.md has the frames.
package guest
