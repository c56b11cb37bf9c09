package config

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/pflag"
)

// Loaded is a configuration and what has to be said about it.
type Loaded struct {
	*Config
	// Warnings name options that were taken without effect.
	Warnings []string
	table    []option
}

// UsageError is a mistake on the command line, as opposed to one in the file.
type UsageError struct{ Err error }

func (e *UsageError) Error() string { return e.Err.Error() }

// Unwrap returns the mistake.
func (e *UsageError) Unwrap() error { return e.Err }

// Load reads the command line and the file it names, and validates both.
func Load(args []string) (*Loaded, error) {
	c := defaults()
	l := &Loaded{Config: c, table: options(c)}
	file := DefaultConfigFile
	initial := l.texts()
	set := flagSet(l.table, &file)
	if err := set.Parse(args); err != nil {
		return nil, &UsageError{err}
	}
	if set.NArg() > 0 {
		return nil, &UsageError{fmt.Errorf("wherryd accepts no arguments: %q", set.Args())}
	}
	if c.Help || c.Version {
		return l, nil
	}
	keys, err := readFile(file, set.Changed("config-file"))
	if err != nil {
		return nil, fileError(file, err)
	}
	if keys != nil {
		c.ConfigFile = file
	}
	if err := l.apply(keys, set); err != nil {
		return nil, fileError(file, err)
	}
	if err := l.judge(initial, keys, set); err != nil {
		return nil, err
	}
	return l, l.finish()
}

func fileError(file string, err error) error {
	return fmt.Errorf("unable to configure the Docker daemon with file %s: %w", file, err)
}

// Usage returns the help text.
func Usage() string {
	file := DefaultConfigFile
	set := flagSet(options(defaults()), &file)
	return "\nUsage:\twherryd [OPTIONS]\n\nA container engine: builds, ships and runs containers.\n\nOptions:\n" + set.FlagUsages()
}

func flagSet(table []option, file *string) *pflag.FlagSet {
	set := pflag.NewFlagSet("wherryd", pflag.ContinueOnError)
	set.SetOutput(io.Discard)
	set.Usage = func() {}
	set.StringVar(file, "config-file", *file, "Daemon configuration file")
	for _, o := range table {
		if o.flag == "" {
			continue
		}
		f := set.VarPF(o.value, o.flag, o.short, o.usage)
		f.Hidden = o.hidden
		if o.value.Type() == "bool" {
			f.NoOptDefVal = "true"
		}
	}
	return set
}

// texts returns every option's value as text, to see later what was changed.
func (l *Loaded) texts() []string {
	out := make([]string, len(l.table))
	for i, o := range l.table {
		out[i] = o.value.String()
	}
	return out
}

// readFile returns the keys of the file, flattened; nil if there is no file
// and none was asked for.
func readFile(path string, required bool) (map[string]json.RawMessage, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) && !required {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	data = bytes.TrimPrefix(data, []byte("\xef\xbb\xbf"))
	if len(bytes.TrimSpace(data)) == 0 {
		return nil, nil // an empty file is an empty configuration, as for dockerd
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	keys := map[string]json.RawMessage{}
	if err := dec.Decode(&keys); err != nil {
		return nil, err
	}
	if dec.More() {
		return nil, fmt.Errorf("unexpected content after the JSON object")
	}
	return flatten(keys)
}

// flatten takes the one grouping object apart.
func flatten(keys map[string]json.RawMessage) (map[string]json.RawMessage, error) {
	raw, ok := keys["proxies"]
	if !ok {
		return keys, nil
	}
	inner := map[string]json.RawMessage{}
	if err := json.Unmarshal(raw, &inner); err != nil {
		return nil, fmt.Errorf("proxies: %w", err)
	}
	delete(keys, "proxies")
	for k, v := range inner {
		keys["proxies."+k] = v
	}
	return keys, nil
}

// apply sets what the file says, after checking that it says nothing unknown
// and nothing that a flag says too.
func (l *Loaded) apply(keys map[string]json.RawMessage, set *pflag.FlagSet) error {
	byKey := make(map[string]option, len(l.table))
	for _, o := range l.table {
		if o.key != "" {
			byKey[o.key] = o
		}
	}
	var unknown, conflicts []string
	names := make([]string, 0, len(keys))
	for k, raw := range keys {
		names = append(names, k)
		o, ok := byKey[k]
		switch {
		case !ok:
			unknown = append(unknown, strings.TrimPrefix(k, "proxies."))
		case o.flag != "" && set.Changed(o.flag):
			conflicts = append(conflicts, fmt.Sprintf("%s: (from flag: %s, from file: %s)", k, o.value.display(), displayJSON(raw)))
		}
	}
	if len(unknown) > 0 {
		slices.Sort(unknown)
		return fmt.Errorf("the following directives don't match any configuration option: %s", strings.Join(unknown, ", "))
	}
	if len(conflicts) > 0 {
		slices.Sort(conflicts)
		return fmt.Errorf("the following directives are specified both as a flag and in the configuration file: %s", strings.Join(conflicts, ", "))
	}
	slices.Sort(names)
	for _, k := range names {
		if err := byKey[k].value.fromJSON(keys[k]); err != nil {
			return fmt.Errorf("%s: %w", k, err)
		}
	}
	return nil
}

// displayJSON shows a key's value as Go would print the decoded one.
func displayJSON(raw json.RawMessage) string {
	var v any
	if json.Unmarshal(raw, &v) != nil {
		return string(raw)
	}
	return fmt.Sprint(v)
}

// judge refuses what is not supported and warns of what has no effect.
func (l *Loaded) judge(initial []string, keys map[string]json.RawMessage, set *pflag.FlagSet) error {
	for i, o := range l.table {
		_, inFile := keys[o.key]
		given := inFile || o.flag != "" && set.Changed(o.flag)
		if !given || o.support == works {
			continue
		}
		name := o.key
		if o.flag != "" && set.Changed(o.flag) {
			name = "--" + o.flag
		}
		if o.support == ignored {
			l.Warnings = append(l.Warnings, fmt.Sprintf("%s has no effect: this engine has no part it applies to", name))
			continue
		}
		if o.value.String() != initial[i] {
			return fmt.Errorf("%s is not supported by this engine yet", name)
		}
	}
	return nil
}

func certPath(name string) string {
	dir := os.Getenv("DOCKER_CERT_PATH")
	if dir == "" {
		dir = os.Getenv("DOCKER_CONFIG")
	}
	if dir == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			home = "/root"
		}
		dir = filepath.Join(home, ".docker")
	}
	return filepath.Join(dir, name)
}
