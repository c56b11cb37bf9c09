package config

import (
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/docker/go-units"
)

// value is bound to a field of Config and set by a flag or by a key's JSON.
// It implements pflag.Value.
type value interface {
	Set(s string) error
	String() string
	Type() string
	fromJSON(raw json.RawMessage) error
	// display shows the value as the conflict message does.
	display() string
}

// typed is a value of one Go type that is parsed from text and decoded from JSON.
type typed[T any] struct {
	p     *T
	typ   string
	parse func(s string, old T) (T, error)
	check func(T) error  // of values from JSON; may be nil
	show  func(T) string // may be nil
	set   *bool          // set when a value was given; may be nil
}

func (v typed[T]) Type() string { return v.typ }

func (v typed[T]) Set(s string) error {
	n, err := v.parse(s, *v.p)
	if err != nil {
		return err
	}
	*v.p = n
	v.mark()
	return nil
}

func (v typed[T]) mark() {
	if v.set != nil {
		*v.set = true
	}
}

func (v typed[T]) String() string {
	if v.p == nil {
		return ""
	}
	if v.show != nil {
		return v.show(*v.p)
	}
	return fmt.Sprint(*v.p)
}

func (v typed[T]) display() string { return v.String() }

func (v typed[T]) fromJSON(raw json.RawMessage) error {
	n := new(T)
	if err := json.Unmarshal(raw, n); err != nil {
		return err
	}
	if v.check != nil {
		if err := v.check(*n); err != nil {
			return err
		}
	}
	*v.p = *n
	v.mark()
	return nil
}

func parseBool(s string, _ bool) (bool, error) { return strconv.ParseBool(s) }

func boolVar(p *bool) value { return typed[bool]{p: p, typ: "bool", parse: parseBool} }

func boolSetVar(p, set *bool) value {
	return typed[bool]{p: p, typ: "bool", parse: parseBool, set: set}
}

func optBoolVar(p **bool) value {
	return typed[*bool]{p: p, typ: "bool",
		parse: func(s string, _ *bool) (*bool, error) {
			b, err := strconv.ParseBool(s)
			return &b, err
		},
		show: func(b *bool) string { return strconv.FormatBool(b == nil || *b) },
	}
}

func stringVar(p *string) value {
	return typed[string]{p: p, typ: "string", parse: func(s, _ string) (string, error) { return s, nil }}
}

// choiceVar takes only the given value, or the empty one.
func choiceVar(p *string, only string) value {
	check := func(s string) error {
		if s != "" && s != only {
			return fmt.Errorf("%q is not supported by this engine; it has %q only", s, only)
		}
		return nil
	}
	return typed[string]{p: p, typ: "string", check: check, parse: func(s, _ string) (string, error) { return s, check(s) }}
}

func intVar(p *int) value {
	return typed[int]{p: p, typ: "int", parse: func(s string, _ int) (int, error) { return strconv.Atoi(s) }}
}

func jsonVar[T any](p *T) value {
	return typed[T]{p: p, typ: "json", parse: func(string, T) (T, error) { return *p, fmt.Errorf("has no flag") }}
}

// bytesVar takes "64m", and numbers in JSON.
func bytesVar(p *int64) value { return bytesValue{p} }

type bytesValue struct{ p *int64 }

func (v bytesValue) Type() string    { return "bytes" }
func (v bytesValue) String() string  { return units.BytesSize(float64(*v.p)) }
func (v bytesValue) display() string { return v.String() }

func (v bytesValue) Set(s string) error {
	n, err := units.RAMInBytes(s)
	if err != nil {
		return err
	}
	*v.p = n
	return nil
}

func (v bytesValue) fromJSON(raw json.RawMessage) error {
	var s string
	if err := json.Unmarshal(raw, &s); err == nil {
		return v.Set(s)
	}
	return json.Unmarshal(raw, v.p)
}

// listVar appends each use of the flag. check may be nil; it returns the value to keep.
func listVar(p *[]string, check func(string) (string, error)) value {
	return typed[[]string]{p: p, typ: "list",
		parse: func(s string, old []string) ([]string, error) {
			if check != nil {
				var err error
				if s, err = check(s); err != nil {
					return nil, err
				}
			}
			return append(slices.Clone(old), s), nil
		},
		check: func(l []string) error {
			for i, s := range l {
				if check == nil {
					continue
				}
				var err error
				if l[i], err = check(s); err != nil {
					return fmt.Errorf("configuration validation from file failed: %w", err)
				}
			}
			return nil
		},
	}
}

func mapVar(p *map[string]string) value {
	return typed[map[string]string]{p: p, typ: "map",
		parse: func(s string, old map[string]string) (map[string]string, error) {
			k, v, _ := strings.Cut(s, "=")
			if k == "" {
				return nil, fmt.Errorf("invalid option %q: want key=value", s)
			}
			return with(old, k, v), nil
		},
	}
}

func boolMapVar(p *map[string]bool) value {
	return typed[map[string]bool]{p: p, typ: "map",
		parse: func(s string, old map[string]bool) (map[string]bool, error) {
			k, v, has := strings.Cut(s, "=")
			on := true
			if has {
				var err error
				if on, err = strconv.ParseBool(v); err != nil {
					return nil, fmt.Errorf("invalid boolean value for feature %s: %q", k, v)
				}
			}
			return with(old, k, on), nil
		},
	}
}

func nestedMapVar(p *map[string]map[string]string) value {
	return typed[map[string]map[string]string]{p: p, typ: "mapmap",
		parse: func(s string, old map[string]map[string]string) (map[string]map[string]string, error) {
			outer, rest, ok := strings.Cut(s, "=")
			k, v, ok2 := strings.Cut(rest, "=")
			if !ok || !ok2 || outer == "" || k == "" {
				return nil, fmt.Errorf("invalid value %q: want driver=key=value", s)
			}
			return with(old, outer, with(old[outer], k, v)), nil
		},
	}
}

// with returns a copy of m that has k.
func with[V any](m map[string]V, k string, v V) map[string]V {
	n := maps.Clone(m)
	if n == nil {
		n = make(map[string]V)
	}
	n[k] = v
	return n
}

func ipVar(p *net.IP) value {
	return typed[net.IP]{p: p, typ: "ip",
		parse: func(s string, _ net.IP) (net.IP, error) {
			ip := net.ParseIP(s)
			if ip == nil {
				return nil, fmt.Errorf("%s is not an ip address", s)
			}
			return ip, nil
		},
		show: func(ip net.IP) string {
			if ip == nil {
				return ""
			}
			return ip.String()
		},
	}
}

func parseAddr(s string) (netip.Addr, error) {
	a, err := netip.ParseAddr(strings.TrimSpace(s))
	if err != nil {
		return a, fmt.Errorf("%s is not an ip address", s)
	}
	return a, nil
}

func addrVar(p *netip.Addr) value { return addrValue{one: p} }

func addrsVar(p *[]netip.Addr) value { return addrValue{many: p} }

// addrValue is one address, or a list of them.
type addrValue struct {
	one  *netip.Addr
	many *[]netip.Addr
}

func (v addrValue) Type() string {
	if v.many != nil {
		return "list"
	}
	return "ip"
}

func (v addrValue) String() string {
	if v.many != nil {
		return fmt.Sprint(*v.many)
	}
	if v.one == nil || !v.one.IsValid() {
		return ""
	}
	return v.one.String()
}

func (v addrValue) display() string { return v.String() }

func (v addrValue) Set(s string) error {
	a, err := parseAddr(s)
	if err != nil {
		return err
	}
	if v.many != nil {
		*v.many = append(slices.Clone(*v.many), a)
		return nil
	}
	*v.one = a
	return nil
}

func (v addrValue) fromJSON(raw json.RawMessage) error {
	var list []string
	if v.one != nil {
		list = make([]string, 1)
		if err := json.Unmarshal(raw, &list[0]); err != nil {
			return err
		}
	} else if err := json.Unmarshal(raw, &list); err != nil {
		return err
	}
	for _, s := range list {
		if err := v.Set(s); err != nil {
			return fmt.Errorf("configuration validation from file failed: %w", err)
		}
	}
	return nil
}
