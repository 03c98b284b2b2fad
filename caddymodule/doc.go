// Package caddymodule makes the router part of Caddy. It is the only package that knows Caddy.
//
//	assistant                 the app: configuration, and the runtime that outlives it
//	http.handlers.assistant   the handler: the API's paths; everything else goes to the next handler
//	admin.api.assistant       control and metrics, under /assistant/ of the admin API
//	http.authentication.providers.assistant   the keys, for Caddy's own authentication
//
// and the config adapter "assistant" for the user's config.toml, and the command "caddy assistant".
package caddymodule
