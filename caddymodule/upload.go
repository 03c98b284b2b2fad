package caddymodule

import (
	"io"
	"net/http"
	"time"
)

// How slowly a body may come: a client that sends nothing for longer, or less a second, is given up with a 408. Otherwise anybody could
// hold any number of requests open for next to nothing. (Caddy bounds the time of headers, by a minute, but not that of bodies.)
const (
	uploadPause = 30 * time.Second // nginx's client_body_timeout is 60 s, Apache's RequestReadTimeout 20 s for the first byte
	uploadRate  = 1 << 10          // bytes a second, over all; Apache's is 500
)

// upload is a body on its way in.
type upload struct {
	r     io.Reader
	to    *http.ResponseController
	began time.Time
	until time.Time // the deadline that is set
	n     int64     // bytes
}

// bounded reads a body that must not come too slowly. end is to be called when it was read: the connection's deadline must not outlast
// that, as net/http goes on reading to notice a client that leaves.
func bounded(w http.ResponseWriter, body io.Reader) (r io.Reader, end func()) {
	now := time.Now()
	u := &upload{r: body, to: http.NewResponseController(w), began: now, until: now.Add(uploadPause)}
	if u.to.SetReadDeadline(u.until) != nil { // a test's writer has no connection
		return body, func() {}
	}
	return u, func() { _ = u.to.SetReadDeadline(time.Time{}) }
}

func (u *upload) Read(p []byte) (int, error) {
	n, err := u.r.Read(p)
	u.n += int64(n)
	if now := time.Now(); err == nil && u.until.Sub(now) < uploadPause/2 {
		earned := u.began.Add(uploadPause + time.Duration(u.n)*time.Second/uploadRate)
		if u.until = now.Add(uploadPause); earned.Before(u.until) {
			u.until = earned
		}
		_ = u.to.SetReadDeadline(u.until)
	}
	return n, err
}
