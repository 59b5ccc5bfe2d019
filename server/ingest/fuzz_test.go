package ingest_test

import (
	"testing"

	"github.com/undertone-fl/undertone/aggregation"
	"github.com/undertone-fl/undertone/aggregation/rounds"
	"github.com/undertone-fl/undertone/server/ingest"
	"github.com/undertone-fl/undertone/server/internal/solo"
)

// FuzzContribution sends whatever bytes, at once and in pieces. They are refused
// or they are in the sum, exactly, and every coordinate is in range.
func FuzzContribution(f *testing.F) {
	spec, raw := solo.Spec(f, solo.Parameters(), solo.Terms(job))
	good := pack(spec, vector(spec, 1))
	f.Add(good, uint16(100), true)
	f.Add(good[1:], uint16(1), true)
	f.Add(append([]byte{1}, good...), uint16(1000), true)
	f.Add([]byte{}, uint16(0), false)
	f.Add(append([]byte{0xff, 0xff, 0xff, 0x7f}, good[4:]...), uint16(7), true)
	f.Fuzz(func(t *testing.T, payload []byte, size uint16, checksum bool) {
		n := solo.New()
		n.CreateFrom(t, spec, raw)
		n.Do(t, rounds.OpenRound{Job: job, Round: 1, Attempt: 1})
		in := newIngest(n, 0)
		want := make([]int64, spec.Releases[0].Length)
		valid := checksum && aggregation.AddPacked(want, payload, spec.Width(), spec.Releases[0].Largest) == nil
		for client, send := range []func(h ingest.Header) error{
			func(h ingest.Header) error {
				_, err := in.Submit(t.Context(), h, append([]byte(nil), payload...))
				return err
			},
			func(h ingest.Header) error { return upload(t.Context(), in, h, payload, int(size)+1) },
		} {
			h := header(n, client, payload)
			if !checksum {
				h.Checksum++
			}
			if err := send(h); (err == nil) != valid {
				t.Errorf("sender %d: %v, and the contribution is valid: %v", client, err, valid)
			}
		}
		if in.Inflight() != 0 {
			t.Errorf("%d bytes are still accounted for", in.Inflight())
		}
		if !valid {
			return
		}
		n.View(func(m *rounds.Machine, _ uint64) {
			if _, err := m.Apply(rounds.CloseRound{Job: job, Round: 1, Attempt: 1}); err != nil {
				t.Fatal(err)
			}
			for i, v := range m.Sum(job) {
				if v != 2*want[i] {
					t.Fatalf("coordinate %d of the sum is %d, want twice %d", i, v, want[i])
				}
			}
		})
	})
}
