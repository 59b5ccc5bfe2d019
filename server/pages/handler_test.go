package pages_test

import (
	"crypto/tls"
	"io"
	"net/http"
	"testing"
	"time"

	"github.com/undertone-fl/undertone/proto/identity"
	"github.com/undertone-fl/undertone/server/authority"
)

// browser is a client with somebody's certificate, or none.
func (n *node) browser(t *testing.T, who *identity.Identity) *http.Client {
	t.Helper()
	config := &tls.Config{InsecureSkipVerify: true} // the node's certificate is not what is tested
	if who != nil {
		issued, err := n.authority.Issue(authority.Request{Identity: *who, Hosts: []string{"localhost"}})
		must(t, err)
		b, err := issued.Bearer()
		must(t, err)
		config = b.ClientTLS()
		config.ServerName = "localhost"
	}
	transport := &http.Transport{TLSClientConfig: config, ForceAttemptHTTP2: true}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: time.Minute, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

func (n *node) get(t *testing.T, c *http.Client, path string) (*http.Response, string) {
	t.Helper()
	resp, err := c.Get("https://" + n.address + path)
	must(t, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	must(t, err)
	return resp, string(body)
}

func TestPages(t *testing.T) {
	n := serve(t)
	c := n.browser(t, &carol)
	for _, path := range []string{"/audit", "/audit/films", "/operate", "/jobs/films", "/jobs/songs", "/downloads"} {
		resp, body := n.get(t, c, path)
		if resp.StatusCode != http.StatusOK {
			t.Errorf("%s: %s\n%s", path, resp.Status, body)
		}
	}
}
