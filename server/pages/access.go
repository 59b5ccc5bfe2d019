package pages

import (
	"net/http"
	"runtime/debug"
	"time"

	"github.com/undertone-fl/undertone/proto/identity"
)

// sees reports whether somebody may see the pages.
func sees(who identity.Identity) bool {
	return who.Role == identity.Operator || who.Role == identity.Auditor
}

// visitor is who a request is from.
type visitor struct {
	identity.Identity
	Ends time.Time // of a session by link; zero: by certificate
}

// visitorOf returns who a request is from, false if nobody who sees anything. A
// certificate that lets somebody in counts more than a link; one that does not is as
// good as none, for a browser shows what it has.
func (p *Pages) visitorOf(r *http.Request) (v visitor, ok bool) {
	if who, err := p.certified(r); err == nil && sees(who) {
		return visitor{Identity: who}, true
	}
	v.Identity, v.Ends, ok = p.links.session(r)
	return v, ok
}

// certified is whose certificate a request came with. It is judged anew each time: a
// connection may outlive the certificate, or the authority, that it began with.
func (p *Pages) certified(r *http.Request) (identity.Identity, error) {
	if r.TLS == nil {
		return identity.Identity{}, identity.ErrNoIdentity
	}
	return p.config.Bearer.Admits(r.TLS.PeerCertificates, p.now())
}

// policy is what a page may load: what this node serves, and no code or style within it.
const policy = "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// ServeHTTP implements http.Handler: what is the same for all requests.
func (p *Pages) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	defer func() {
		if what := recover(); what != nil {
			p.config.Panicked()
			p.config.Logger.Error("panic in a page", "path", r.Pattern, "panic", what, "stack", string(debug.Stack()))
			p.fail(w, r, http.StatusInternalServerError, "This page could not be made", "The server's log says more.")
		}
	}()
	h := w.Header()
	h.Set("Content-Security-Policy", policy)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("X-Frame-Options", "DENY")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Cache-Control", "no-store")
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		h.Set("Allow", "GET, HEAD")
		p.fail(w, r, http.StatusMethodNotAllowed, "These pages are to be read", "There is nothing else that can be done with them.")
		return
	}
	p.handler.ServeHTTP(w, r)
}

// forVisitors shows a page to those who may see it.
func (p *Pages) forVisitors(show func(http.ResponseWriter, *http.Request, visitor)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		v, ok := p.visitorOf(r)
		if !ok {
			p.refuse(w, r)
			return
		}
		p.admitted(r, v.Identity)
		show(w, r, v)
	}
}

// refuse says how to get in, and nothing else. A connection whose certificate is of no
// use ends with that: over the next one the browser may show another.
func (p *Pages) refuse(w http.ResponseWriter, r *http.Request) {
	if r.TLS != nil && len(r.TLS.PeerCertificates) > 0 {
		w.Header().Set("Connection", "close")
	}
	p.render(w, http.StatusForbidden, "refused", view{Title: "No entry"})
}

// enter exchanges a link for a session. A browser sends the cookie with no request that
// another site led it to, and following a redirection is still that; so this is a page,
// and what it leads on to is its own.
func (p *Pages) enter(w http.ResponseWriter, r *http.Request) {
	// To look at a link is not to use it.
	if r.Method == http.MethodHead || looksAhead(r) {
		p.refuse(w, r)
		return
	}
	cookie, ok := p.links.enter(r.PathValue("secret"))
	if !ok {
		p.refuse(w, r)
		return
	}
	http.SetCookie(w, cookie)
	p.render(w, http.StatusOK, "entered", view{Title: "Welcome", Next: "/"})
}

// looksAhead reports whether a browser asks before a person does.
func looksAhead(r *http.Request) bool {
	for _, name := range []string{"Sec-Purpose", "Purpose", "X-Purpose", "X-Moz"} {
		if r.Header.Get(name) != "" {
			return true
		}
	}
	return false
}
