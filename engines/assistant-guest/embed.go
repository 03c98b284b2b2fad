// Package assistantguest holds our guest for WasmEdge, built from the source beside this file by scripts/build-guest.sh.
package assistantguest

import (
	"crypto/sha256"
	_ "embed" // the guest
	"encoding/hex"
	"sync"
)

// Wasm is the guest, as WasmEdge runs it.
//
//go:embed assistant-guest.wasm
var Wasm []byte

// SHA256 is the checksum of Wasm, in hex.
var SHA256 = sync.OnceValue(func() string {
	sum := sha256.Sum256(Wasm)
	return hex.EncodeToString(sum[:])
})
