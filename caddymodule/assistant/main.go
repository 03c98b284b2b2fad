// Command assistant is Caddy with the router in it.
package main

import (
	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	_ "github.com/caddyserver/caddy/v2/modules/standard"

	_ "assistant/caddymodule"
)

func main() { caddycmd.Main() }
