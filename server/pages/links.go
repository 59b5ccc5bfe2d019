package pages

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"time"

	"github.com/undertone-fl/undertone/proto/identity"
)

// MaxLink is how long a link, and the session that it begins, last at the most.
const MaxLink = 15 * time.Minute

// How many links there may be, used or not: of everybody, and of one identity. One more
// ends the oldest.
const (
	maxLinks         = 256
	maxLinksOfOne    = 8
	enterPath        = "/enter/"
	secretBytes      = 32
	earliestLifetime = time.Second
)

// ErrLink says that nobody gets a link of that kind.
var ErrLink = errors.New("pages: no such link")

// Links let browsers in that have no certificate. A link is a secret in a URL that
// whoever has a certificate obtained (Create); the first request with it exchanges it for
// another secret, in a cookie, that ends when the link would have. It gives what its
// maker's role gives and lasts no longer than MaxLink, whatever happens in between.
//
// Secrets are 256 random bits. Only their hashes are kept, in memory: a link is of one
// node, and gone when that restarts.
type Links struct {
	base   url.URL
	cookie string
	now    func() time.Time

	mu    sync.Mutex
	links []link // the oldest first
}

// link is what a secret stands for.
type link struct {
	secret [sha256.Size]byte // the URL's; once used, the cookie's
	used   bool
	who    identity.Identity
	ends   time.Time
}

// newLinks makes links to host:port.
func newLinks(host string) *Links {
	l := &Links{base: url.URL{Scheme: "https", Host: host}, now: time.Now}
	// Cookies know no ports: several nodes of one host need several names.
	l.cookie = "__Host-undertone-" + l.base.Port()
	return l
}

// Create makes a link for somebody who has shown a certificate, for a time, 0 being
// MaxLink. Fails with ErrLink for a role that sees no pages, or a time that is too long.
func (l *Links) Create(who identity.Identity, lifetime time.Duration) (address string, ends time.Time, err error) {
	if lifetime == 0 {
		lifetime = MaxLink
	}
	switch {
	case !sees(who):
		return "", ends, fmt.Errorf("%w: %s sees no pages", ErrLink, who.Role)
	case lifetime < earliestLifetime || lifetime > MaxLink:
		return "", ends, fmt.Errorf("%w: it lasts from %v to %v", ErrLink, earliestLifetime, MaxLink)
	}
	secret, hash := newSecret()
	ends = l.now().Add(lifetime)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.expire()
	ofOne := 0
	for _, other := range l.links {
		if other.who == who {
			ofOne++
		}
	}
	switch {
	case ofOne >= maxLinksOfOne:
		i := slices.IndexFunc(l.links, func(other link) bool { return other.who == who })
		l.links = slices.Delete(l.links, i, i+1)
	case len(l.links) >= maxLinks:
		l.links = slices.Delete(l.links, 0, 1)
	}
	l.links = append(l.links, link{secret: hash, who: who, ends: ends})
	return l.base.JoinPath(enterPath, secret).String(), ends, nil
}

// enter exchanges a link's secret for a cookie, once.
func (l *Links) enter(secret string) (*http.Cookie, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	found := l.find(secret, false)
	if found == nil {
		return nil, false
	}
	var next string
	next, found.secret = newSecret()
	found.used = true
	return &http.Cookie{
		Name: l.cookie, Value: next, Path: "/",
		Secure: true, HttpOnly: true, SameSite: http.SameSiteStrictMode,
		MaxAge: max(int(found.ends.Sub(l.now()).Seconds()), 1),
	}, true
}

// session is who a request's cookie was given to, and until when.
func (l *Links) session(r *http.Request) (who identity.Identity, ends time.Time, ok bool) {
	c, err := r.Cookie(l.cookie)
	if err != nil {
		return who, ends, false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	found := l.find(c.Value, true)
	if found == nil {
		return who, ends, false
	}
	return found.who, found.ends, true
}

// find compares a secret with all there are, in a time that says nothing of them.
func (l *Links) find(secret string, used bool) (found *link) {
	l.expire()
	hash := sha256.Sum256([]byte(secret))
	for i := range l.links {
		if same := subtle.ConstantTimeCompare(hash[:], l.links[i].secret[:]); same == 1 && l.links[i].used == used {
			found = &l.links[i]
		}
	}
	return found
}

func (l *Links) expire() {
	now := l.now()
	l.links = slices.DeleteFunc(l.links, func(x link) bool { return !now.Before(x.ends) })
}

func newSecret() (secret string, hash [sha256.Size]byte) {
	var random [secretBytes]byte
	rand.Read(random[:])
	secret = base64.RawURLEncoding.EncodeToString(random[:])
	return secret, sha256.Sum256([]byte(secret))
}
