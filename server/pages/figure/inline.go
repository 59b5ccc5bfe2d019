package figure

import (
	"fmt"
	"html/template"
	"regexp"
	"strings"
)

// Inline is the figure as an element of a page: as large as drawn, or as its column has
// room for if the style sheet says so, named by its title and described by its caption for
// those who do not see it, in colours that follow the page's. The page's style sheet has to
// have the Variables.
func (f *Figure) Inline() (template.HTML, error) {
	svg, err := f.SVG()
	if err != nil {
		return "", err
	}
	s := string(svg)
	s = s[strings.Index(s, "<svg"):]
	for _, p := range paints {
		s = strings.ReplaceAll(s, strings.ToUpper(p.Light), "var("+p.variable()+")")
	}
	s = inlineStyle.ReplaceAllStringFunc(s, attributes)
	s = strings.Replace(s, "<svg", fmt.Sprintf(`<svg role="img" aria-labelledby="%[1]s-title" aria-describedby="%[1]s-desc"`, f.Name), 1)
	end := strings.Index(s, ">") + 1
	s = s[:end] + fmt.Sprintf(`<title id="%s-title">%s</title><desc id="%[1]s-desc">%[3]s</desc>`,
		f.Name, template.HTMLEscapeString(f.Title), template.HTMLEscapeString(f.Caption)) + s[end:]
	return template.HTML(s), nil
}

var inlineStyle = regexp.MustCompile(`style="[^"]*"`)

// attributes are a style attribute's properties as attributes of their own, which a
// content security policy has no reason to forbid.
func attributes(style string) string {
	var b strings.Builder
	for property := range strings.SplitSeq(strings.TrimSuffix(strings.TrimPrefix(style, `style="`), `"`), ";") {
		name, value, _ := strings.Cut(property, ":")
		if value != "" && value != "normal" {
			fmt.Fprintf(&b, `%s="%s" `, name, value)
		}
	}
	return strings.TrimSuffix(b.String(), " ")
}
