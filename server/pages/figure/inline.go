package figure

import (
	"fmt"
	"html/template"
	"regexp"
	"strings"
)

// mostScale is how much larger than drawn a figure is shown.
const mostScale = 1.2

// Inline is the figure as an element of a page: as large as its column has room for, up to
// mostScale times its size if the style sheet bounds its width by that of the column, named by its title
// and described by its caption for those who do not see it, in colours that follow the
// page's. The page's style sheet has to have the Variables.
func (f *Figure) Inline() (template.HTML, error) {
	svg, err := f.SVG()
	if err != nil {
		return "", err
	}
	s := string(svg)
	s = s[strings.Index(s, "<svg"):]
	s = natural.ReplaceAllString(s, fmt.Sprintf(`<svg width="%.5gpt" height="%.5gpt"`, f.width()*mostScale, f.height()*mostScale))
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

var natural = regexp.MustCompile(`^<svg width="[^"]*" height="[^"]*"`)

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
