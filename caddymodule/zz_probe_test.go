package caddymodule

import ("testing";"net/http")

func TestZZProbe(t *testing.T) {
	s := newSite(t)
	s.handler = map[string]any{"handler": "static_response", "status_code": 200, "body": "hello"}
	s.app = nil
	s.start()
	_ = http.MethodGet
	tr := s.traffic(t, "m")
	for range 5 {
		tr.goOn(s, 100)
		s.load()
	}
	tr.goOn(s, 100)
	tr.end()
}
