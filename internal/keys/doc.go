// Package keys knows who may use which models: API keys in a TOML file, which is read again when it changes. A key is 256 random
// bits; the file holds its SHA-256 only, so that it is of no use to who reads it.
package keys
