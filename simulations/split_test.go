package simulations

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/undertone-fl/undertone/client"
	"github.com/undertone-fl/undertone/simulations/population"
)

// TestDevicesHoldOutTheSameRows: what undertone-agent measures is comparable with
// what undertone simulate does, as both learn from the same rows of a file.
func TestDevicesHoldOutTheSameRows(t *testing.T) {
	var text strings.Builder
	text.WriteString("item,user,rating\n")
	for row := range 300 { // no rating twice; users differ in how many they have
		fmt.Fprintf(&text, "i%d,user %d,%d\n", row%7, row*row%29%11, row)
	}
	path := filepath.Join(t.TempDir(), "ratings.csv")
	if err := os.WriteFile(path, []byte(text.String()), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, train := range []float64{1, 5, 1000, 0.3, 0.75} {
		for seed := range uint64(3) {
			users, err := population.OpenCSV(population.CSV{Path: path, Format: "ratings", Train: train}, seed)
			if err != nil {
				t.Fatal(err)
			}
			table, err := client.OpenTable(path, client.Ratings, nil)
			if err != nil {
				t.Fatal(err)
			}
			held := table.HoldOut(train, seed)
			for i, name := range table.Users() {
				var in, out population.Samples
				users.Train(i, &in)
				users.Test(i, &out)
				for _, part := range []struct {
					of   *client.Table
					want []float64
				}{{table, in.Y}, {held, out.Y}} {
					var got []float64
					for _, row := range part.of.Rows(name) {
						got = append(got, row.Y)
					}
					slices.Sort(got)
					slices.Sort(part.want)
					if !slices.Equal(got, part.want) {
						t.Fatalf("--train %v --seed %d: %s has %v here and %v there", train, seed, name, got, part.want)
					}
				}
			}
		}
	}
}
