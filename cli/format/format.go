// Package format prints values through Go templates, with the functions and
// the "table" directive that Docker's --format has.
package format

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"text/template"
)

// JSON is the template that --format json stands for.
const JSON = "{{json .}}"

// Resolve turns what the user gave (or, if that is empty, what config.json
// has) into a template. def is the table's template, without "table".
func Resolve(given, configured, def string) string {
	if given == "" {
		given = configured
	}
	switch given {
	case "", "table":
		return "table " + def
	case "json":
		return JSON
	}
	return given
}

// Rows prints each row by tmpl, a line each. With the table directive, columns
// are aligned and header, a row whose fields are the column titles, comes first.
func Rows[T any](w io.Writer, tmpl string, header T, rows []T) error {
	body, table := strings.CutPrefix(tmpl, "table")
	body = unescape(strings.TrimSpace(body))
	if !table {
		body = unescape(tmpl)
	}
	t, err := Parse(body)
	if err != nil {
		return err
	}
	var buf bytes.Buffer
	if table {
		if err := printHeader(&buf, t, header); err != nil {
			return err
		}
	}
	for _, r := range rows {
		if err := t.Execute(&buf, r); err != nil {
			return fmt.Errorf("failed to execute template: %w", err)
		}
		buf.WriteByte('\n')
	}
	if !table {
		_, err = buf.WriteTo(w)
		return err
	}
	tw := tabwriter.NewWriter(w, 10, 1, 3, ' ', 0)
	if _, err := buf.WriteTo(tw); err != nil {
		return err
	}
	return tw.Flush()
}

func printHeader(w *bytes.Buffer, t *template.Template, header any) error {
	h, err := t.Clone()
	if err != nil {
		return err
	}
	if err := h.Funcs(headerFuncs()).Execute(w, header); err != nil {
		return err
	}
	w.WriteByte('\n')
	return nil
}

// Value prints one value by tmpl, and a newline.
func Value(w io.Writer, tmpl string, v any) error {
	if tmpl == "json" {
		tmpl = JSON
	}
	t, err := Parse(unescape(tmpl))
	if err != nil {
		return err
	}
	var buf bytes.Buffer
	if err := t.Execute(&buf, v); err != nil {
		return err
	}
	buf.WriteByte('\n')
	_, err = buf.WriteTo(w)
	return err
}

// Parse parses a template with Docker's functions.
func Parse(tmpl string) (*template.Template, error) {
	t, err := template.New("").Funcs(funcs()).Parse(tmpl)
	if err != nil {
		return nil, fmt.Errorf("failed to parse template: %w", err)
	}
	return t, nil
}

// unescape lets users write \t and \n in a shell's single quotes.
func unescape(s string) string {
	return strings.NewReplacer(`\t`, "\t", `\n`, "\n").Replace(s)
}

func funcs() template.FuncMap {
	return template.FuncMap{
		"json":     toJSON,
		"split":    strings.Split,
		"join":     strings.Join,
		"title":    title,
		"lower":    strings.ToLower,
		"upper":    strings.ToUpper,
		"pad":      pad,
		"truncate": truncate,
	}
}

// headerFuncs let a column's title through the functions that shape its cells.
func headerFuncs() template.FuncMap {
	return template.FuncMap{
		"json":     func(s any) any { return s },
		"title":    func(s any) any { return s },
		"lower":    func(s any) any { return s },
		"upper":    func(s any) any { return s },
		"truncate": func(s any, _ int) any { return s },
		"join":     func(s any, _ string) any { return s },
		"split":    func(s any, _ string) any { return s },
	}
}

func toJSON(v any) (string, error) {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return "", err
	}
	return strings.TrimSuffix(buf.String(), "\n"), nil
}

// title upper-cases the first letter of each word.
func title(s string) string {
	up := true
	return strings.Map(func(r rune) rune {
		was := up
		up = r == ' ' || r == '\t' || r == '\n'
		if was {
			return []rune(strings.ToUpper(string(r)))[0]
		}
		return r
	}, s)
}

func pad(s string, prefix, suffix int) string {
	if s == "" {
		return s
	}
	return strings.Repeat(" ", prefix) + s + strings.Repeat(" ", suffix)
}

func truncate(s string, n int) string {
	r := []rune(s)
	if len(r) < n || n < 0 {
		return s
	}
	return string(r[:n])
}
