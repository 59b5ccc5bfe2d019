package dp_test

import (
	"testing"

	"github.com/undertone-fl/undertone/dp"
)

func TestAdjacency(t *testing.T) {
	for _, c := range []struct {
		name   string
		want   dp.Adjacency
		factor float64
	}{{"zero-out", dp.ZeroOut, 1}, {"replace-one", dp.ReplaceOne, 2}} {
		a, err := dp.ParseAdjacency(c.name)
		if err != nil || a != c.want || a.String() != c.name || a.SensitivityFactor() != c.factor {
			t.Errorf("%s: %v, factor %g, %v", c.name, a, a.SensitivityFactor(), err)
		}
	}
	for _, s := range []string{"", "ZeroOut", "add-remove"} {
		if _, err := dp.ParseAdjacency(s); err == nil {
			t.Errorf("%q was taken", s)
		}
	}
}
