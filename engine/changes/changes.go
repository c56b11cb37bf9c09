// Package changes applies Dockerfile instructions to a container's
// configuration, as commit and import take them with --change.
package changes

import (
	"encoding/json"
	"fmt"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	apicontainer "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
)

func invalid(format string, args ...any) error {
	return errdefs.ErrInvalidArgument.WithMessage(fmt.Sprintf(format, args...))
}

// Apply applies instructions in order. InvalidArgument for what is no
// instruction or not one of those that only change the configuration.
func Apply(c *apicontainer.Config, lines []string) error {
	for _, text := range lines {
		for line := range strings.SplitSeq(text, "\n") {
			line = strings.TrimSpace(line)
			if line == "" || line[0] == '#' {
				continue
			}
			if err := apply(c, line); err != nil {
				return err
			}
		}
	}
	return nil
}

func apply(c *apicontainer.Config, line string) error {
	word, rest, _ := strings.Cut(line, " ")
	rest = strings.TrimSpace(rest)
	name := strings.ToUpper(word)
	if rest == "" && name != "CMD" && name != "ENTRYPOINT" {
		return invalid("%s requires an argument", name)
	}
	switch name {
	case "CMD":
		c.Cmd = command(rest, c.Shell)
	case "ENTRYPOINT":
		c.Entrypoint = command(rest, c.Shell)
	case "ENV":
		return env(c, rest)
	case "LABEL":
		return label(c, rest)
	case "EXPOSE":
		return expose(c, rest)
	case "USER":
		c.User = rest
	case "WORKDIR":
		if path.IsAbs(rest) {
			c.WorkingDir = path.Clean(rest)
		} else {
			c.WorkingDir = path.Join("/", c.WorkingDir, rest)
		}
	case "VOLUME":
		return volume(c, rest)
	case "STOPSIGNAL":
		c.StopSignal = rest
	case "ONBUILD":
		c.OnBuild = append(c.OnBuild, rest)
	case "HEALTHCHECK":
		return healthcheck(c, rest)
	case "SHELL":
		var shell []string
		if err := json.Unmarshal([]byte(rest), &shell); err != nil {
			return invalid("SHELL requires the arguments to be in JSON form")
		}
		c.Shell = shell
	default:
		return invalid("%s is not a valid change command", word)
	}
	return nil
}

// command reads the exec form (JSON) or the shell form.
func command(text string, shell []string) []string {
	var args []string
	if strings.HasPrefix(text, "[") && json.Unmarshal([]byte(text), &args) == nil {
		return args
	}
	if text == "" {
		return nil
	}
	if len(shell) == 0 {
		shell = []string{"/bin/sh", "-c"}
	}
	return append(slices.Clone(shell), text)
}

// pairs reads KEY=VALUE words with quotes, or the old form KEY VALUE.
func pairs(text string) ([][2]string, error) {
	first, _, _ := strings.Cut(text, " ")
	if !strings.Contains(first, "=") {
		k, v, ok := strings.Cut(text, " ")
		if !ok {
			return nil, invalid("%q must have two arguments", text)
		}
		return [][2]string{{k, strings.TrimSpace(v)}}, nil
	}
	words, err := split(text)
	if err != nil {
		return nil, err
	}
	var out [][2]string
	for _, w := range words {
		k, v, ok := strings.Cut(w, "=")
		if !ok || k == "" {
			return nil, invalid("can't find = in %q. Must be of the form: name=value", w)
		}
		out = append(out, [2]string{k, v})
	}
	return out, nil
}

// split cuts text at spaces that are not quoted and removes quotes.
func split(text string) ([]string, error) {
	var out []string
	var b strings.Builder
	inWord := false
	quote := byte(0)
	for i := 0; i < len(text); i++ {
		ch := text[i]
		switch {
		case ch == '\\' && quote != '\'' && i+1 < len(text):
			i++
			b.WriteByte(text[i])
			inWord = true
		case quote != 0 && ch == quote:
			quote = 0
		case quote != 0:
			b.WriteByte(ch)
		case ch == '"' || ch == '\'':
			quote, inWord = ch, true
		case ch == ' ' || ch == '\t':
			if inWord {
				out = append(out, b.String())
				b.Reset()
				inWord = false
			}
		default:
			b.WriteByte(ch)
			inWord = true
		}
	}
	if quote != 0 {
		return nil, invalid("unterminated quote in %q", text)
	}
	if inWord {
		out = append(out, b.String())
	}
	return out, nil
}

func env(c *apicontainer.Config, text string) error {
	kvs, err := pairs(text)
	if err != nil {
		return err
	}
	for _, kv := range kvs {
		c.Env = slices.DeleteFunc(c.Env, func(e string) bool { return strings.HasPrefix(e, kv[0]+"=") })
		c.Env = append(c.Env, kv[0]+"="+kv[1])
	}
	return nil
}

func label(c *apicontainer.Config, text string) error {
	kvs, err := pairs(text)
	if err != nil {
		return err
	}
	if c.Labels = maps.Clone(c.Labels); c.Labels == nil {
		c.Labels = map[string]string{}
	}
	for _, kv := range kvs {
		c.Labels[kv[0]] = kv[1]
	}
	return nil
}

func expose(c *apicontainer.Config, text string) error {
	if c.ExposedPorts == nil {
		c.ExposedPorts = network.PortSet{}
	}
	for word := range strings.FieldsSeq(text) {
		r, err := network.ParsePortRange(word)
		if err != nil {
			return invalid("%v", err)
		}
		for p := range r.All() {
			c.ExposedPorts[p] = struct{}{}
		}
	}
	return nil
}

func volume(c *apicontainer.Config, text string) error {
	var list []string
	if !strings.HasPrefix(text, "[") || json.Unmarshal([]byte(text), &list) != nil {
		list = strings.Fields(text)
	}
	if c.Volumes == nil {
		c.Volumes = map[string]struct{}{}
	}
	for _, v := range list {
		if v == "" {
			return invalid("VOLUME specified can not be an empty string")
		}
		c.Volumes[v] = struct{}{}
	}
	return nil
}

func healthcheck(c *apicontainer.Config, text string) error {
	if strings.EqualFold(text, "NONE") {
		c.Healthcheck = &apicontainer.HealthConfig{Test: []string{"NONE"}}
		return nil
	}
	h := &apicontainer.HealthConfig{}
	for strings.HasPrefix(text, "--") {
		flag, rest, _ := strings.Cut(text, " ")
		text = strings.TrimSpace(rest)
		name, value, _ := strings.Cut(flag[2:], "=")
		if err := healthFlag(h, name, value); err != nil {
			return err
		}
	}
	word, rest, _ := strings.Cut(text, " ")
	if !strings.EqualFold(word, "CMD") {
		return invalid("Unknown type %q in HEALTHCHECK (try CMD)", strings.ToUpper(word))
	}
	rest = strings.TrimSpace(rest)
	var args []string
	switch {
	case rest == "":
		return invalid("Missing command after HEALTHCHECK CMD")
	case strings.HasPrefix(rest, "[") && json.Unmarshal([]byte(rest), &args) == nil:
		h.Test = append([]string{"CMD"}, args...)
	default:
		h.Test = []string{"CMD-SHELL", rest}
	}
	c.Healthcheck = h
	return nil
}

func healthFlag(h *apicontainer.HealthConfig, name, value string) error {
	if name == "retries" {
		n, err := strconv.Atoi(value)
		if err != nil || n < 0 {
			return invalid("--retries must be at least 0 (not %s)", value)
		}
		h.Retries = n
		return nil
	}
	d, err := time.ParseDuration(value)
	if err != nil {
		return invalid("%v", err)
	}
	switch name {
	case "interval":
		h.Interval = d
	case "timeout":
		h.Timeout = d
	case "start-period":
		h.StartPeriod = d
	case "start-interval":
		h.StartInterval = d
	default:
		return invalid("unknown flag: %s", name)
	}
	return nil
}
