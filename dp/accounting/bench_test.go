package accounting_test

import (
	"testing"

	"github.com/undertone-fl/undertone/dp/accounting"
)

// report calibrates a thousand rounds and prices them by every accountant.
func report() (gdp, rdp, zcdp, pld float64) {
	const epsilon, delta, rounds = 4, 1e-6, 1000
	e := gaussians(must(accounting.CalibrateGaussian(epsilon, delta, rounds)), rounds)
	return byGDP(e, delta), byRDP(e, delta), must(must(accounting.ZCDP(e)).SimpleEpsilon(delta)), byPLD(e, delta)
}

func TestReportOfThousandRounds(t *testing.T) {
	gdp, rdp, zcdp, pld := report()
	near(t, "GDP", gdp, 4, 1e-9)
	near(t, "PLD", pld, 4, 1e-4)
	if !(gdp < rdp && rdp < zcdp) {
		t.Errorf("GDP %v, RDP %v, simple zCDP %v", gdp, rdp, zcdp)
	}
}

func BenchmarkThousandRounds(b *testing.B) {
	for b.Loop() {
		report()
	}
}

func BenchmarkGaussianEpsilon(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		accounting.GaussianEpsilon(1, 1e-6)
	}
}

func BenchmarkGaussianCharge(b *testing.B) {
	for b.Loop() {
		must(accounting.GaussianCharge(18.9, 1))
	}
}

func BenchmarkCalibrateSampled(b *testing.B) {
	for b.Loop() {
		must(accounting.CalibrateSampled(1, 1e-5, 1000, 0.01))
	}
}
