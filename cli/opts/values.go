// Package opts parses the values of flags: lists, sizes, ports, mounts,
// networks, environment files and the like. It does not talk to anyone; files
// are read where a flag names one.
package opts

import (
	"fmt"
	"math/big"
	"sort"
	"strings"

	"github.com/docker/go-units"
)

// List is a flag that collects its values in order, without splitting them.
type List struct {
	into  *[]string
	check func(string) (string, error)
}

// NewList returns a List that appends to into. check, unless nil, may change
// or refuse a value.
func NewList(into *[]string, check func(string) (string, error)) *List {
	return &List{into: into, check: check}
}

// Set appends v.
func (l *List) Set(v string) error {
	if l.check != nil {
		var err error
		if v, err = l.check(v); err != nil {
			return err
		}
	}
	*l.into = append(*l.into, v)
	return nil
}

// Type is the word that help shows.
func (*List) Type() string { return "list" }

// String shows the values.
func (l *List) String() string {
	if l.into == nil || len(*l.into) == 0 {
		return ""
	}
	return fmt.Sprint(*l.into)
}

// GetSlice, Append and Replace make List a slice value for completion.
func (l *List) GetSlice() []string { return *l.into }

// Append appends v.
func (l *List) Append(v string) error { return l.Set(v) }

// Replace sets all values.
func (l *List) Replace(v []string) error {
	*l.into = v
	return nil
}

// Map is a flag of key=value pairs.
type Map struct {
	into  *map[string]string
	check func(string) (string, error)
}

// NewMap returns a Map that fills into.
func NewMap(into *map[string]string, check func(string) (string, error)) *Map {
	return &Map{into: into, check: check}
}

// Set adds key=value; a key alone has the empty value.
func (m *Map) Set(v string) error {
	if m.check != nil {
		var err error
		if v, err = m.check(v); err != nil {
			return err
		}
	}
	if *m.into == nil {
		*m.into = map[string]string{}
	}
	k, val, _ := strings.Cut(v, "=")
	(*m.into)[k] = val
	return nil
}

// Type is the word that help shows.
func (*Map) Type() string { return "map" }

// String shows nothing before the first Set.
func (m *Map) String() string {
	if m.into == nil || len(*m.into) == 0 {
		return ""
	}
	return fmt.Sprint(*m.into)
}

// Bytes is a size such as 64m; MinusOne allows -1 for "unlimited".
type Bytes struct {
	N        int64
	MinusOne bool
}

// Set parses v in powers of 1024.
func (b *Bytes) Set(v string) error {
	if b.MinusOne && v == "-1" {
		b.N = -1
		return nil
	}
	n, err := units.RAMInBytes(v)
	b.N = n
	return err
}

// Type is the word that help shows.
func (*Bytes) Type() string { return "bytes" }

// String shows the size, "0" for none, which help leaves out.
func (b *Bytes) String() string {
	if b.N == 0 {
		return "0"
	}
	return units.BytesSize(float64(b.N))
}

// CPUs is a decimal number of processors, kept in billionths.
type CPUs int64

// Set parses "1.5".
func (c *CPUs) Set(v string) error {
	r, ok := new(big.Rat).SetString(v)
	if !ok {
		return invalidf("failed to parse %v as a rational number", v)
	}
	n := new(big.Rat).Mul(r, big.NewRat(1e9, 1))
	if !n.IsInt() {
		return invalidf("value is too precise")
	}
	if !n.Num().IsInt64() {
		return invalidf("value is too large")
	}
	*c = CPUs(n.Num().Int64())
	return nil
}

// Type is the word that help shows.
func (*CPUs) Type() string { return "decimal" }

// String shows the number, "" for none.
func (c *CPUs) String() string {
	if *c == 0 {
		return ""
	}
	return big.NewRat(int64(*c), 1e9).FloatString(3)
}

// Filters is a flag of name=value conditions, in the API's form.
type Filters map[string]map[string]bool

// Set adds a condition. Names are lower-cased and trimmed.
func (f *Filters) Set(v string) error {
	if v == "" {
		return nil
	}
	name, val, ok := strings.Cut(v, "=")
	if !ok {
		return invalidf("bad format of filter (expected name=value)")
	}
	f.Add(strings.ToLower(strings.TrimSpace(name)), strings.TrimSpace(val))
	return nil
}

// Add adds one condition.
func (f *Filters) Add(name, val string) {
	if *f == nil {
		*f = Filters{}
	}
	if (*f)[name] == nil {
		(*f)[name] = map[string]bool{}
	}
	(*f)[name][val] = true
}

// Type is the word that help shows.
func (*Filters) Type() string { return "filter" }

// String shows nothing before the first Set.
func (f *Filters) String() string {
	if len(*f) == 0 {
		return ""
	}
	names := make([]string, 0, len(*f))
	for n := range *f {
		names = append(names, n)
	}
	sort.Strings(names)
	return strings.Join(names, ",")
}

// Ulimits is a flag of name=soft[:hard] limits; a later one replaces an
// earlier one of the same name.
type Ulimits []*units.Ulimit

// Set parses one limit.
func (u *Ulimits) Set(v string) error {
	l, err := units.ParseUlimit(v)
	if err != nil {
		return err
	}
	for i, old := range *u {
		if old.Name == l.Name {
			(*u)[i] = l
			return nil
		}
	}
	*u = append(*u, l)
	return nil
}

// Type is the word that help shows.
func (*Ulimits) Type() string { return "ulimit" }

// String shows the limits, "" for none.
func (u *Ulimits) String() string {
	if len(*u) == 0 {
		return ""
	}
	return fmt.Sprint(*u)
}
