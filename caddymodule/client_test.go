package caddymodule

import (
	"context"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"assistant/internal/keys"
)

func TestClientIsAKeyOrElseAnAddress(t *testing.T) {
	ask := func(remote, trusted string, header ...string) uint64 {
		r := httptest.NewRequest(http.MethodPost, "/", http.NoBody)
		r.RemoteAddr = remote
		for i := 0; i < len(header); i += 2 {
			r.Header.Set(header[i], header[i+1])
		}
		if trusted != "" {
			vars := map[string]any{caddyhttp.ClientIPVarKey: trusted}
			r = r.WithContext(context.WithValue(r.Context(), caddyhttp.VarsCtxKey, vars))
		}
		return clientOf(r, nil)
	}
	held := func(name string) uint64 {
		return clientOf(httptest.NewRequest(http.MethodPost, "/", http.NoBody), &keys.Key{Name: name})
	}
	key := ask("10.0.0.1:5", "", "Authorization", "Bearer k")
	for name, c := range map[string]struct {
		a, b uint64
		same bool
	}{
		"one key from two addresses":         {key, ask("10.0.0.2:5", "", "Authorization", "bearer  k"), true},
		"one key in three headers":           {ask("a:1", "", "X-Api-Key", "k"), ask("a:1", "", "Api-Key", "k"), true},
		"a key is a key in any header":       {key, ask("a:1", "", "X-Api-Key", "k"), true},
		"two keys from one address":          {key, ask("10.0.0.1:5", "", "Authorization", "Bearer l"), false},
		"no key, two ports":                  {ask("10.0.0.1:5", ""), ask("10.0.0.1:6", ""), true},
		"no key, two addresses":              {ask("10.0.0.1:5", ""), ask("10.0.0.2:5", ""), false},
		"two clients behind a trusted proxy": {ask("10.0.0.1:5", "1.1.1.1"), ask("10.0.0.1:5", "1.1.1.2"), false},
		"one key that is held":               {held("a"), held("a"), true},
		"two keys that are held":             {held("a"), held("b"), false},
		"no port":                            {ask("@", ""), ask("@", ""), true},
		"another scheme is no key":           {ask("10.0.0.1:5", "", "Authorization", "Basic k"), ask("10.0.0.1:6", ""), true},
	} {
		if (c.a == c.b) != c.same {
			t.Errorf("%s: same client is %v, want %v", name, c.a == c.b, c.same)
		}
	}
}
