package transfer

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
)

const maxRedirects = 10 // as net/http and huggingface_hub

// FollowSafely is how redirects are followed on the way to a file ([http.Client.CheckRedirect]): never from encryption to none, and without an
// Authorization to another origin.
func FollowSafely(req *http.Request, via []*http.Request) error {
	if err := Bounded(via); err != nil {
		return err
	}
	for i := range via { // a header that was dropped on the way comes back with the next redirect
		if Leaves(req, via) || i > 0 && Leaves(via[i], via) {
			req.Header.Del("Authorization")
		}
	}
	return Safely(via[len(via)-1].URL, req.URL)
}

// Bounded ends what is sent from one place to the next for ever.
func Bounded(via []*http.Request) error {
	if len(via) >= maxRedirects {
		return fmt.Errorf("stopped after %d redirects", maxRedirects)
	}
	return nil
}

// Leaves tells whether a redirect goes to another origin than the first request went to: there its Authorization is not for. net/http
// takes only other host names for that, not other ports.
func Leaves(req *http.Request, via []*http.Request) bool {
	first := via[0].URL
	return req.URL.Scheme != first.Scheme || !strings.EqualFold(req.URL.Host, first.Host)
}

// Safely checks that a redirect gives up no encryption.
func Safely(from, to *url.URL) error {
	if to.Scheme != "https" && (to.Scheme != "http" || from.Scheme == "https") {
		return fmt.Errorf("%s leads to %s://%s, which is not encrypted", from.Host, to.Scheme, to.Host)
	}
	return nil
}
