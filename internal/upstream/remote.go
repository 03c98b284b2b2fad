package upstream

import (
	"context"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// NewRemote makes a transport to another server, by the address of its API, such as https://openrouter.ai/api/v1: the path of a request comes
// behind what stands before /v1. header is given to every request, in place of what the client sent under the same names.
func NewRemote(base *url.URL, header http.Header) *Std {
	s := &Std{Header: header, scheme: base.Scheme, host: base.Host, prefix: strings.TrimSuffix(strings.TrimSuffix(base.Path, "/"), "/v1")}
	s.transport = &http.Transport{
		Proxy: http.ProxyFromEnvironment,
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			if s.isClosed() {
				return nil, &DialError{address, net.ErrClosed}
			}
			d := net.Dialer{Timeout: remoteDialTimeout, KeepAlive: remoteKeepAlive} // unlike a local peer, it may vanish
			nc, err := d.DialContext(ctx, network, address)
			if err != nil && ctx.Err() == nil {
				return nil, &DialError{address, err}
			}
			return nc, err
		},
		TLSHandshakeTimeout:    remoteDialTimeout,
		ForceAttemptHTTP2:      true,
		DisableCompression:     true, // it would hold tokens back
		MaxIdleConnsPerHost:    maxIdle,
		IdleConnTimeout:        idleTimeout,
		MaxResponseHeaderBytes: maxHead,
	}
	return s
}

const (
	remoteDialTimeout = 5 * time.Second
	remoteKeepAlive   = 15 * time.Second
)
