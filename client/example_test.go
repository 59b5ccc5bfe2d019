package client_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log"
	"log/slog"
	"os"
	"os/signal"

	"github.com/undertone-fl/undertone/aggregation/rounds"
	"github.com/undertone-fl/undertone/client"
	"github.com/undertone-fl/undertone/proto/identity"
)

// diary is where an app keeps what its user did: here, two meals and how they
// were liked.
func diary() iter.Seq[client.Row] {
	return func(yield func(client.Row) bool) {
		_ = yield(client.Row{X: []float64{1, 0, 0.5}, Y: 4}) &&
			yield(client.Row{X: []float64{0, 1, 0.25}, Y: 2})
	}
}

// An app takes part in the background, and predicts at any time.
func Example() {
	device, err := client.Open(client.Config{
		Dir:      "/var/lib/meals/device", // neither copied nor backed up
		Servers:  []string{"n1.example.com:7300", "n2.example.com:7300", "n3.example.com:7300"},
		Identity: identity.In("/var/lib/meals/certificates"), // tls.crt, tls.key, ca.crt
		Samples:  client.Rows(diary()),
		Jobs:     []string{"meals"},
		// What this user's device may disclose, over all jobs and for ever.
		Cap: client.Cap{Epsilon: 4, Delta: 1e-6},
		// Nobody is trusted with a contribution that has less than all of its noise.
		Trust:  []rounds.Trust{rounds.TrustLocal},
		Logger: slog.Default(),
		Report: func(s *client.Summary) {
			for _, j := range s.Jobs {
				fmt.Println(j.Job, j.Round, j.Outcome, j.Err)
			}
		},
	})
	if err != nil {
		log.Fatal(err) // one line that names the field, or the file
	}
	defer device.Close()

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	go device.Run(ctx) // or device.Sync(ctx), when the phone charges

	liked, err := device.Predict("meals", []float64{1, 0, 1}, nil)
	if errors.Is(err, client.ErrNoModel) {
		fmt.Println("still learning")
	} else if err == nil {
		fmt.Printf("you will give it %.1f\n", liked)
	}
}
