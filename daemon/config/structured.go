package config

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/docker/go-units"
)

func ulimitsVar(p *map[string]*units.Ulimit) value {
	return typed[map[string]*units.Ulimit]{p: p, typ: "ulimit",
		parse: func(s string, old map[string]*units.Ulimit) (map[string]*units.Ulimit, error) {
			u, err := units.ParseUlimit(s)
			if err != nil {
				return nil, err
			}
			return with(old, u.Name, u), nil
		},
		check: func(m map[string]*units.Ulimit) error {
			for name, u := range m {
				if u == nil {
					return fmt.Errorf("default-ulimits: %s has no value", name)
				}
				if _, err := units.ParseUlimit(fmt.Sprintf("%s=%d:%d", u.Name, u.Soft, u.Hard)); err != nil {
					return fmt.Errorf("default-ulimits: %w", err)
				}
			}
			return nil
		},
		show: func(m map[string]*units.Ulimit) string {
			parts := []string{}
			for _, u := range m {
				parts = append(parts, u.String())
			}
			return fmt.Sprint(parts)
		},
	}
}

func runtimesVar(p *map[string]Runtime) value {
	return typed[map[string]Runtime]{p: p, typ: "runtime",
		parse: func(s string, old map[string]Runtime) (map[string]Runtime, error) {
			name, path, ok := strings.Cut(strings.TrimSpace(s), "=")
			name, path = strings.TrimSpace(name), strings.TrimSpace(path)
			if !ok || name == "" || path == "" {
				return nil, fmt.Errorf("invalid runtime argument: %s", s)
			}
			if _, taken := old[name]; taken {
				return nil, fmt.Errorf("runtime '%s' was already defined", name)
			}
			return with(old, name, Runtime{Path: path}), nil
		},
	}
}

func poolsVar(p *[]Pool) value {
	return typed[[]Pool]{p: p, typ: "pool-options",
		parse: func(s string, old []Pool) ([]Pool, error) {
			pool, err := parsePool(s)
			if err != nil {
				return nil, err
			}
			return append(append([]Pool{}, old...), pool), nil
		},
		check: func(l []Pool) error {
			for _, pool := range l {
				if err := checkPool(pool); err != nil {
					return err
				}
			}
			return nil
		},
	}
}

func parsePool(s string) (Pool, error) {
	var p Pool
	for field := range strings.SplitSeq(s, ",") {
		k, v, ok := strings.Cut(field, "=")
		if !ok {
			return p, fmt.Errorf("invalid field '%s' must be a key=value pair", field)
		}
		var err error
		switch strings.ToLower(k) {
		case "base":
			p.Base, err = netip.ParsePrefix(v)
		case "size":
			p.Size, err = strconv.Atoi(v)
		default:
			err = fmt.Errorf("unexpected key '%s' in '%s'", k, field)
		}
		if err != nil {
			return p, err
		}
	}
	return p, checkPool(p)
}

func checkPool(p Pool) error {
	if !p.Base.IsValid() {
		return fmt.Errorf("default address pool: base is missing")
	}
	if p.Size < p.Base.Bits() || p.Size > p.Base.Addr().BitLen() {
		return fmt.Errorf("default address pool %s: size %d must be between %d and %d", p.Base, p.Size, p.Base.Bits(), p.Base.Addr().BitLen())
	}
	return nil
}

// nriVar takes both forms of nri-opts into a flat map.
func nriVar(p *map[string]string) value { return nriValue{p} }

type nriValue struct{ p *map[string]string }

func (v nriValue) Type() string    { return "nri-opts" }
func (v nriValue) display() string { return v.String() }

func (v nriValue) String() string {
	if v.p == nil || len(*v.p) == 0 || len(*v.p) == 1 && (*v.p)["enable"] == "false" {
		return ""
	}
	return fmt.Sprint(*v.p)
}

func (v nriValue) Set(s string) error {
	for field := range strings.SplitSeq(s, ",") {
		k, val, _ := strings.Cut(field, "=")
		*v.p = with(*v.p, k, val)
	}
	return nil
}

func (v nriValue) fromJSON(raw json.RawMessage) error {
	m := map[string]any{}
	if err := json.Unmarshal(raw, &m); err != nil {
		return err
	}
	for k, val := range m {
		*v.p = with(*v.p, k, fmt.Sprint(val))
	}
	return nil
}
