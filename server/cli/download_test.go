package cli

import (
	"bytes"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/undertone-fl/undertone/dp/ledger"
	"github.com/undertone-fl/undertone/proto/identity"
	"github.com/undertone-fl/undertone/proto/identity/grpctls"
	undertonev1 "github.com/undertone-fl/undertone/proto/undertone/v1"
	"github.com/undertone-fl/undertone/proto/undertone/v1/undertonev1grpc"
	"github.com/undertone-fl/undertone/server/authority"
)

// pieces hands a ledger out, and ends with an error.
type pieces struct {
	undertonev1grpc.UnimplementedLedgerServiceServer
	all [][]byte
	err error
}

func (p pieces) DownloadLedger(_ *undertonev1.DownloadLedgerRequest, s grpc.ServerStreamingServer[undertonev1.DownloadLedgerResponse]) error {
	for _, piece := range p.all {
		if err := s.Send(&undertonev1.DownloadLedgerResponse{Chunk: piece}); err != nil {
			return err
		}
	}
	return p.err
}

// A download that breaks off begins anew at the next server, and leaves nothing of the
// first one's in the file; one that a server refuses does not.
func TestDownloadBreaksOff(t *testing.T) {
	ca, err := authority.New()
	if err != nil {
		t.Fatal(err)
	}
	issued, err := ca.Issue(authority.Request{Identity: identity.Identity{Role: identity.Auditor, Name: "eve"}})
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "eve")
	if _, err := issued.Write(dir); err != nil {
		t.Fatal(err)
	}
	serve := func(p pieces) string {
		b, err := ca.Bearer(identity.Node, "n", "127.0.0.1")
		if err != nil {
			t.Fatal(err)
		}
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		s := grpc.NewServer(grpc.Creds(grpctls.Server(b, identity.Auditor)))
		undertonev1grpc.RegisterLedgerServiceServer(s, p)
		go s.Serve(l)
		t.Cleanup(s.Stop)
		return l.Addr().String()
	}
	var bundle bytes.Buffer
	if err := ledger.WriteBundle(&bundle, &ledger.Bundle{Checkpoint: []byte("signed"), Records: [][]byte{[]byte("one")}}); err != nil {
		t.Fatal(err)
	}
	cut := serve(pieces{all: [][]byte{bytes.Repeat([]byte("x"), 5000)}, err: status.Error(codes.Unavailable, "error reading from server: EOF")})
	whole := serve(pieces{all: [][]byte{bundle.Bytes()[:10], bundle.Bytes()[10:]}})
	refuses := serve(pieces{err: status.Error(codes.PermissionDenied, "no")})

	fetched := func(servers ...string) ([]byte, error) {
		cmd := &cobra.Command{}
		cmd.SetContext(t.Context())
		cmd.SetOut(new(bytes.Buffer))
		cmd.SetErr(new(bytes.Buffer))
		path := filepath.Join(t.TempDir(), "ledger.zip")
		err := fetch(cmd, &connection{servers: servers, identity: dir, timeout: time.Minute}, path)
		content, _ := os.ReadFile(path)
		return content, err
	}
	if got, err := fetched(cut, whole); err != nil || !bytes.Equal(got, bundle.Bytes()) {
		t.Errorf("%d bytes, want %d: %v", len(got), bundle.Len(), err)
	}
	if got, err := fetched(cut); err == nil || !strings.Contains(err.Error(), "the connection broke off") || got != nil {
		t.Errorf("from one that breaks off: %d bytes, %v", len(got), err)
	}
	if got, err := fetched(refuses, whole); err == nil || got != nil {
		t.Errorf("from one that refuses: %d bytes, %v", len(got), err)
	}
}
