package image

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/errdefs"
)

// ApplyChanges changes a configuration by Dockerfile instructions, as commit
// and import take them: CMD, ENTRYPOINT, ENV, EXPOSE, HEALTHCHECK, LABEL,
// ONBUILD, SHELL, STOPSIGNAL, USER, VOLUME, WORKDIR. InvalidArgument.
func ApplyChanges(cfg *Config, changes []string) error {
	for _, c := range changes {
		for line := range strings.SplitSeq(c, "\n") {
			if line = strings.TrimSpace(line); line == "" || line[0] == '#' {
				continue
			}
			if err := applyChange(cfg, line); err != nil {
				return err
			}
		}
	}
	return nil
}

func applyChange(cfg *Config, line string) error {
	word, rest, _ := strings.Cut(line, " ")
	rest = strings.TrimSpace(rest)
	word = strings.ToUpper(word)
	if rest == "" {
		return fmt.Errorf("%s requires at least one argument: %w", word, errdefs.ErrInvalidArgument)
	}
	c := &cfg.Config
	switch word {
	case "CMD":
		c.Cmd = command(cfg, rest)
		return nil
	case "ENTRYPOINT":
		c.Entrypoint = command(cfg, rest)
		return nil
	case "ENV":
		return pairs(word, rest, func(k, v string) { c.Env = setEnv(c.Env, k, v) })
	case "LABEL":
		return pairs(word, rest, func(k, v string) { put(&c.Labels, k, v) })
	case "EXPOSE":
		return expose(cfg, rest)
	case "VOLUME":
		for _, v := range list(rest) {
			put(&c.Volumes, v, struct{}{})
		}
		return nil
	case "USER":
		c.User = rest
	case "WORKDIR":
		c.WorkingDir = workdir(c.WorkingDir, unquote(rest))
	case "STOPSIGNAL":
		c.StopSignal = rest
	case "SHELL":
		return execForm(word, rest, &cfg.Shell)
	case "ONBUILD":
		return onBuild(cfg, rest)
	case "HEALTHCHECK":
		return healthcheck(cfg, rest)
	default:
		return fmt.Errorf("%s is not a valid change command: %w", word, errdefs.ErrInvalidArgument)
	}
	return nil
}

func put[V any](m *map[string]V, k string, v V) {
	if *m == nil {
		*m = map[string]V{}
	}
	(*m)[k] = v
}

func execForm(word, rest string, v *[]string) error {
	if err := json.Unmarshal([]byte(rest), v); err != nil {
		return fmt.Errorf("%s requires the arguments to be in JSON form: %w", word, errdefs.ErrInvalidArgument)
	}
	return nil
}

// command reads the exec form, or runs the shell form in the shell.
func command(cfg *Config, rest string) []string {
	var args []string
	if strings.HasPrefix(rest, "[") && json.Unmarshal([]byte(rest), &args) == nil {
		return args
	}
	shell := cfg.Shell
	if len(shell) == 0 {
		shell = []string{"/bin/sh", "-c"}
	}
	return append(append([]string{}, shell...), rest)
}

// list reads a JSON list or words.
func list(rest string) []string {
	var args []string
	if strings.HasPrefix(rest, "[") && json.Unmarshal([]byte(rest), &args) == nil {
		return args
	}
	return strings.Fields(rest)
}

func setEnv(env []string, k, v string) []string {
	out := make([]string, 0, len(env)+1)
	for _, e := range env {
		if name, _, _ := strings.Cut(e, "="); name != k {
			out = append(out, e)
		}
	}
	return append(out, k+"="+v)
}

// pairs reads `k=v k2="v 2"`, or the old `k v`.
func pairs(word, rest string, set func(k, v string)) error {
	words, err := splitWords(rest)
	if err != nil {
		return fmt.Errorf("%s: %w", word, err)
	}
	if !strings.Contains(words[0], "=") {
		k, v, ok := strings.Cut(rest, " ")
		if !ok {
			return fmt.Errorf("%s must have two arguments: %w", word, errdefs.ErrInvalidArgument)
		}
		set(k, unquote(strings.TrimSpace(v)))
		return nil
	}
	for _, w := range words {
		k, v, ok := strings.Cut(w, "=")
		if !ok || k == "" {
			return fmt.Errorf("%s: syntax error - can't find = in %q: %w", word, w, errdefs.ErrInvalidArgument)
		}
		set(k, v)
	}
	return nil
}

func unquote(s string) string {
	if w, err := splitWords(s); err == nil && len(w) == 1 {
		return w[0]
	}
	return s
}

// splitWords splits at blanks outside quotes and removes quotes and backslashes.
func splitWords(s string) ([]string, error) {
	var words []string
	var cur strings.Builder
	var quote byte
	open := false
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch {
		case c == '\\' && quote != '\'' && i+1 < len(s):
			i++
			if quote == '"' && s[i] != '"' && s[i] != '\\' && s[i] != '$' {
				cur.WriteByte('\\')
			}
			cur.WriteByte(s[i])
			open = true
		case quote != 0 && c == quote:
			quote = 0
		case quote != 0:
			cur.WriteByte(c)
		case c == '"' || c == '\'':
			quote, open = c, true
		case c == ' ' || c == '\t':
			if open {
				words = append(words, cur.String())
			}
			cur.Reset()
			open = false
		default:
			cur.WriteByte(c)
			open = true
		}
	}
	if quote != 0 {
		return nil, fmt.Errorf("unexpected end of statement while looking for matching %c: %w", quote, errdefs.ErrInvalidArgument)
	}
	if open {
		words = append(words, cur.String())
	}
	return words, nil
}

// expose reads ports and ranges: "80", "53/udp", "7000-7002/tcp".
func expose(cfg *Config, rest string) error {
	for _, p := range strings.Fields(rest) {
		ports, proto, ok := strings.Cut(p, "/")
		if !ok {
			proto = "tcp"
		}
		proto = strings.ToLower(proto)
		first, last, isRange := strings.Cut(ports, "-")
		if !isRange {
			last = first
		}
		from, err1 := strconv.ParseUint(first, 10, 16)
		to, err2 := strconv.ParseUint(last, 10, 16)
		if err1 != nil || err2 != nil || from == 0 || from > to || proto != "tcp" && proto != "udp" && proto != "sctp" {
			return fmt.Errorf("invalid containerPort: %s: %w", p, errdefs.ErrInvalidArgument)
		}
		for n := from; n <= to; n++ {
			put(&cfg.Config.ExposedPorts, strconv.FormatUint(n, 10)+"/"+proto, struct{}{})
		}
	}
	return nil
}

func workdir(old, dir string) string {
	if strings.HasPrefix(dir, "/") {
		return dir
	}
	return strings.TrimSuffix(old, "/") + "/" + dir
}

func onBuild(cfg *Config, rest string) error {
	word, _, _ := strings.Cut(rest, " ")
	switch strings.ToUpper(word) {
	case "ONBUILD":
		return fmt.Errorf("chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed: %w", errdefs.ErrInvalidArgument)
	case "MAINTAINER", "FROM":
		return fmt.Errorf("%s isn't allowed as an ONBUILD trigger: %w", strings.ToUpper(word), errdefs.ErrInvalidArgument)
	}
	cfg.OnBuild = append(cfg.OnBuild, rest)
	return nil
}

// health is Docker's JSON of a health check.
type health struct {
	Test          []string      `json:",omitempty"`
	Interval      time.Duration `json:",omitempty"`
	Timeout       time.Duration `json:",omitempty"`
	StartPeriod   time.Duration `json:",omitempty"`
	StartInterval time.Duration `json:",omitempty"`
	Retries       int           `json:",omitempty"`
}

func healthcheck(cfg *Config, rest string) error {
	var h health
	for strings.HasPrefix(rest, "--") {
		var flag string
		flag, rest, _ = strings.Cut(rest, " ")
		rest = strings.TrimSpace(rest)
		if err := h.flag(flag); err != nil {
			return err
		}
	}
	word, args, _ := strings.Cut(rest, " ")
	args = strings.TrimSpace(args)
	switch strings.ToUpper(word) {
	case "NONE":
		h.Test = []string{"NONE"}
	case "CMD":
		var exec []string
		if strings.HasPrefix(args, "[") && json.Unmarshal([]byte(args), &exec) == nil {
			h.Test = append([]string{"CMD"}, exec...)
		} else {
			h.Test = []string{"CMD-SHELL", args}
		}
	default:
		return fmt.Errorf("unknown type %q in HEALTHCHECK (try CMD): %w", word, errdefs.ErrInvalidArgument)
	}
	var err error
	cfg.Healthcheck, err = json.Marshal(h)
	return err
}

func (h *health) flag(flag string) error {
	name, value, _ := strings.Cut(strings.TrimPrefix(flag, "--"), "=")
	var err error
	switch name {
	case "interval":
		h.Interval, err = time.ParseDuration(value)
	case "timeout":
		h.Timeout, err = time.ParseDuration(value)
	case "start-period":
		h.StartPeriod, err = time.ParseDuration(value)
	case "start-interval":
		h.StartInterval, err = time.ParseDuration(value)
	case "retries":
		h.Retries, err = strconv.Atoi(value)
	default:
		return fmt.Errorf("unknown flag: %s: %w", name, errdefs.ErrInvalidArgument)
	}
	if err != nil {
		return fmt.Errorf("HEALTHCHECK %s: %w: %w", flag, err, errdefs.ErrInvalidArgument)
	}
	return nil
}
