package report

import (
	"fmt"
	"math"
	"slices"

	"github.com/undertone-fl/undertone/simulations"
)

// unlimited is the epsilon of a run without privacy.
var unlimited = simulations.Epsilon(math.Inf(1))

// cheap is the rise of the error, against no privacy, up to which a
// budget counts as cheap.
const cheap = 0.10

// Headline says in a sentence or two what the experiment found: what privacy
// costs the first method that has a budget, and how it compares with each
// user alone. It is empty if the summary has no figure to speak of.
func Headline(res *simulations.Result) string {
	metric := mainMetric(res)
	method := ""
	for _, m := range res.Config.Methods {
		if releases(m) {
			method = m
			break
		}
	}
	if method == "" {
		return ""
	}

	at, rise := headlineBudget(res, method, metric)
	s, ok := summary(res, method, at, metric)
	if !ok {
		return ""
	}
	what := fmt.Sprintf("the %s of %s is %s", metricLabel(metric), methodName(method), newCell(s))
	free, hasFree := summary(res, method, unlimited, metric)
	text := ""
	switch {
	case !at.Private():
		text = "Without privacy, " + what
	case !hasFree:
		text = fmt.Sprintf("At ε = %v, %s", at, what)
	case rise <= cheap && res.Config.Seeds != 1 && narrow(s) && narrow(free) && !worseThanAlone(res, s, metric):
		text = fmt.Sprintf("Down to ε = %v, privacy costs at most %.0f %% in error: there %s, against %s without privacy",
			at, max(1, math.Ceil(100*rise)), what, newCell(free))
	default:
		text = fmt.Sprintf("At ε = %v, %s, against %s without privacy", at, what, newCell(free))
	}
	return text + ". " + againstLocal(res, s, metric)
}

// headlineBudget is the smallest epsilon from which on privacy is cheap, and
// the largest relative rise of the error from there on. Where no budget is
// cheap, or there is no figure without privacy to compare with, it is the
// largest private one; where none is private, inf.
func headlineBudget(res *simulations.Result, method, metric string) (at simulations.Epsilon, rise float64) {
	free, hasFree := summary(res, method, unlimited, metric)
	at = unlimited
	for _, e := range slices.Backward(sortedEpsilons(res)) {
		s, ok := summary(res, method, e, metric)
		if !ok || !e.Private() {
			continue
		}
		r := s.Mean/free.Mean - 1
		if hasFree && r <= cheap {
			at, rise = e, max(rise, r)
			continue
		}
		if !at.Private() {
			at, rise = e, r
		}
		break
	}
	return at, rise
}

// worseThanAlone reports whether users are measured and do better alone.
func worseThanAlone(res *simulations.Result, s simulations.Summary, metric string) bool {
	local, ok := summary(res, simulations.Local, s.Epsilon, metric)
	return ok && s.Mean > local.Mean
}

// narrow reports whether a mean's interval allows speaking of it in percent.
func narrow(s simulations.Summary) bool { return s.CI95 <= 0.2*s.Mean }

func againstLocal(res *simulations.Result, s simulations.Summary, metric string) string {
	if (metric == simulations.RelativeError || metric == simulations.MSE) && s.Mean >= 1 {
		return "That is no better than predicting zero."
	}
	local, ok := summary(res, simulations.Local, s.Epsilon, metric)
	if !ok || !(s.Mean > 0) {
		return ""
	}
	switch ratio := local.Mean / s.Mean; {
	case ratio > 1 && s.Mean+s.CI95 >= local.Mean-local.CI95:
		return fmt.Sprintf("What users reach alone (%s) lies within the intervals.", newCell(local))
	case ratio > 1 && !narrow(s):
		return fmt.Sprintf("Users reach less alone (%s).", newCell(local))
	case ratio >= 1.5:
		return fmt.Sprintf("That is %.1f times smaller than what users reach alone (%s).", ratio, newCell(local))
	case ratio > 1:
		return fmt.Sprintf("That is %.1f %% smaller than what users reach alone (%s).", 100*(1-1/ratio), newCell(local))
	default:
		return fmt.Sprintf("Users do better alone (%s).", newCell(local))
	}
}
