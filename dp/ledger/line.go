package ledger

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// unshown are characters that show nothing themselves and change what is shown: controls
// (Cc), what separates lines and paragraphs (Zl, Zp), and format characters (Cf), which
// turn or hide the text around them. They are those of Unicode 15, and not of whichever
// version a program is built with: what is a record today is one for ever.
var unshown = &unicode.RangeTable{
	R16: []unicode.Range16{
		{0x0000, 0x001f, 1}, {0x007f, 0x009f, 1}, {0x00ad, 0x00ad, 1}, {0x0600, 0x0605, 1}, {0x061c, 0x061c, 1},
		{0x06dd, 0x06dd, 1}, {0x070f, 0x070f, 1}, {0x0890, 0x0891, 1}, {0x08e2, 0x08e2, 1}, {0x180e, 0x180e, 1},
		{0x200b, 0x200f, 1}, {0x2028, 0x202e, 1}, {0x2060, 0x2064, 1}, {0x2066, 0x206f, 1}, {0xfeff, 0xfeff, 1},
		{0xfff9, 0xfffb, 1},
	},
	R32: []unicode.Range32{
		{0x110bd, 0x110bd, 1}, {0x110cd, 0x110cd, 1}, {0x13430, 0x1343f, 1}, {0x1bca0, 0x1bca3, 1},
		{0x1d173, 0x1d17a, 1}, {0xe0001, 0xe0001, 1}, {0xe0020, 0xe007f, 1},
	},
	LatinOffset: 3,
}

// OneLine returns s with a question mark in the place of each character that a record's
// texts may not have (FORMAT.md). It has no more bytes than s, if that is UTF-8.
func OneLine(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.Is(unshown, r) {
			return '?'
		}
		return r
	}, s)
}

// oneLine reports whether s is a line of text of at most so many bytes: it will be
// printed.
func oneLine(s string, most int) bool {
	return s != "" && len(s) <= most && utf8.ValidString(s) && OneLine(s) == s
}
