package pages

import (
	"math"
	"strconv"
	"strings"
	"time"
)

// significant writes x with three significant digits, and whole numbers of more than
// that in full: 0.0123, 4.31, 12,345.
func significant(x float64) string {
	switch a := math.Abs(x); {
	case math.IsInf(x, 0):
		return "∞"
	case math.IsNaN(x):
		return "unknown"
	case a == 0:
		return "0"
	case a < 1e-3 || a >= 1e9:
		return exponent(x, 2)
	case a >= 100:
		return group(strconv.FormatFloat(x, 'f', 0, 64))
	}
	decimals := 2 - int(math.Floor(math.Log10(math.Abs(x))))
	return strconv.FormatFloat(x, 'f', decimals, 64)
}

// exponent writes 1.23·10⁻⁵, and 10⁻⁶ rather than 1.00·10⁻⁶.
func exponent(x float64, digits int) string {
	mantissa, power, _ := strings.Cut(strconv.FormatFloat(x, 'e', digits, 64), "e")
	if strings.Contains(mantissa, ".") {
		mantissa = strings.TrimRight(strings.TrimRight(mantissa, "0"), ".")
	}
	n, _ := strconv.Atoi(power)
	raised := strings.NewReplacer("-", "⁻", "0", "⁰", "1", "¹", "2", "²", "3", "³", "4", "⁴",
		"5", "⁵", "6", "⁶", "7", "⁷", "8", "⁸", "9", "⁹").Replace(strconv.Itoa(n))
	if mantissa == "1" {
		return "10" + raised
	}
	return mantissa + "·10" + raised
}

// whole writes 20000 as 20,000.
func whole[T ~int | ~int64 | ~uint64](n T) string { return group(strconv.FormatInt(int64(n), 10)) }

func group(digits string) string {
	sign := ""
	if strings.HasPrefix(digits, "-") {
		sign, digits = "-", digits[1:]
	}
	for i := len(digits) - 3; i > 0; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	return sign + digits
}

// count is a number of things.
func count[T ~int | ~int64 | ~uint64](n T, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return whole(n) + " " + many
}

// size writes bytes.
func size(bytes int64) string {
	units := []string{"B", "kB", "MB", "GB", "TB"}
	x, i := float64(bytes), 0
	for ; x >= 1000 && i < len(units)-1; i++ {
		x /= 1000
	}
	if i == 0 {
		return whole(bytes) + " B"
	}
	return significant(x) + " " + units[i]
}

// span writes a duration as one would say it.
func span(d time.Duration) string {
	switch {
	case d < time.Second:
		return strconv.FormatInt(d.Milliseconds(), 10) + " ms"
	case d < time.Minute:
		return strconv.Itoa(int(d.Seconds())) + " s"
	case d < time.Hour:
		return strconv.Itoa(int(d.Minutes())) + " min " + strconv.Itoa(int(d.Seconds())%60) + " s"
	}
	return group(strconv.Itoa(int(d.Hours()))) + " h " + strconv.Itoa(int(d.Minutes())%60) + " min"
}

// moment writes an RFC 3339 time to the minute, in UTC. Empty is one that has no such form.
func moment(rfc3339 string) string {
	if rfc3339 == "" {
		return "(a time beyond the year 9999)"
	}
	t, err := time.Parse(time.RFC3339, rfc3339)
	if err != nil {
		return rfc3339
	}
	return t.UTC().Format("2006-01-02 15:04")
}

// brief is the beginning of a digest.
func brief(digest string) string {
	const digits = 8
	if len(digest) > digits {
		return digest[:digits] + "…"
	}
	return digest
}

func sentence(s string) string {
	if s == "" {
		return s
	}
	return strings.ToUpper(s[:1]) + s[1:]
}
