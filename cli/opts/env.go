package opts

import (
	"bufio"
	"bytes"
	"os"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Env returns the variables of files, then those given. A name without "="
// takes its value from the caller's environment; if that has none, the name goes
// to the daemon alone, which takes the image's variable away. In a file such a
// name is left out.
func Env(files, given []string) ([]string, error) {
	var all []string
	for _, f := range files {
		lines, err := readPairs(f, true)
		if err != nil {
			return nil, err
		}
		all = append(all, lines...)
	}
	for _, v := range given {
		k, _, has := strings.Cut(v, "=")
		if k == "" {
			return nil, invalidf("invalid environment variable: %s", v)
		}
		if !has {
			if val, ok := os.LookupEnv(k); ok {
				v = k + "=" + val
			}
		}
		all = append(all, v)
	}
	return all, nil
}

// Labels returns the labels of files, then those given, as a map.
func Labels(files, given []string) (map[string]string, error) {
	m := map[string]string{}
	var all []string
	for _, f := range files {
		lines, err := readPairs(f, false)
		if err != nil {
			return nil, err
		}
		all = append(all, lines...)
	}
	for _, l := range append(all, given...) {
		k, v, _ := strings.Cut(l, "=")
		if strings.TrimSpace(k) == "" {
			return nil, invalidf("invalid label '%s': empty name", l)
		}
		m[k] = v
	}
	return m, nil
}

// readPairs reads lines of key=value; "#" begins a comment line. fromEnv takes
// missing values from the environment.
func readPairs(path string, fromEnv bool) ([]string, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	raw = bytes.TrimPrefix(raw, []byte("\xef\xbb\xbf"))
	var all []string
	sc := bufio.NewScanner(bytes.NewReader(raw))
	sc.Buffer(nil, 1<<20)
	for n := 1; sc.Scan(); n++ {
		line := strings.TrimLeftFunc(sc.Text(), unicode.IsSpace)
		if !utf8.ValidString(line) {
			return nil, invalidf("invalid utf8 bytes at line %d of %s", n, path)
		}
		if line == "" || line[0] == '#' {
			continue
		}
		k, v, has := strings.Cut(line, "=")
		if strings.ContainsFunc(k, unicode.IsSpace) {
			return nil, invalidf("invalid env file (%s): variable '%s' contains whitespaces", path, k)
		}
		if k == "" {
			return nil, invalidf("invalid env file (%s): no variable name on line '%s'", path, line)
		}
		if !has && fromEnv {
			val, ok := os.LookupEnv(k)
			if !ok {
				continue
			}
			v, has = val, true
		}
		if has {
			k += "=" + v
		}
		all = append(all, k)
	}
	return all, sc.Err()
}

// ExtraHost checks a value of --add-host, NAME:IP or NAME=IP, and returns it
// with a colon. The word host-gateway stands for the host's address.
func ExtraHost(v string) (string, error) {
	i := strings.IndexAny(v, ":=")
	if i <= 0 || i == len(v)-1 {
		return "", invalidf("bad format for add-host: %q", v)
	}
	name, ip := v[:i], v[i+1:]
	if l := len(ip); l > 2 && ip[0] == '[' && ip[l-1] == ']' {
		ip = ip[1 : l-1]
	}
	if ip != "host-gateway" {
		var a Addr
		if a.Set(ip) != nil {
			return "", invalidf("invalid IP address in add-host: %q", ip)
		}
	}
	return name + ":" + ip, nil
}
