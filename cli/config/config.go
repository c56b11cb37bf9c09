// Package config reads and writes the client's configuration directory
// (~/.docker or $DOCKER_CONFIG): config.json, credential helpers and contexts,
// in the formats that other clients share. It keeps every key it does not know.
package config

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// File is config.json. Keys that are not fields here survive Save.
type File struct {
	// Dir is the configuration directory.
	Dir string

	Auths            map[string]Auth
	CredsStore       string
	CredHelpers      map[string]string
	HTTPHeaders      map[string]string
	CurrentContext   string
	DetachKeys       string
	PsFormat         string
	ImagesFormat     string
	NetworksFormat   string
	VolumesFormat    string
	StatsFormat      string
	PluginsExtraDirs []string
	PruneFilters     []string
	Aliases          map[string]string
	Proxies          map[string]Proxy
	loaded, replaced map[string]json.RawMessage
}

// Auth is one entry of "auths".
type Auth struct {
	Auth          string `json:"auth,omitempty"` // base64 of user:password
	IdentityToken string `json:"identitytoken,omitempty"`
	RegistryToken string `json:"registrytoken,omitempty"`
	Username      string `json:"username,omitempty"`
	Password      string `json:"password,omitempty"`
}

// Proxy is one entry of "proxies", passed to containers as environment.
type Proxy struct {
	HTTPProxy  string `json:"httpProxy,omitempty"`
	HTTPSProxy string `json:"httpsProxy,omitempty"`
	NoProxy    string `json:"noProxy,omitempty"`
	FTPProxy   string `json:"ftpProxy,omitempty"`
	AllProxy   string `json:"allProxy,omitempty"`
}

// DefaultDir returns $DOCKER_CONFIG or ~/.docker.
func DefaultDir() string {
	if d := os.Getenv("DOCKER_CONFIG"); d != "" {
		return d
	}
	home, err := os.UserHomeDir()
	if err != nil {
		home = "/"
	}
	return filepath.Join(home, ".docker")
}

// Load reads dir/config.json; a missing file is an empty one.
func Load(dir string) (*File, error) {
	f := &File{Dir: dir, loaded: map[string]json.RawMessage{}, replaced: map[string]json.RawMessage{}}
	raw, err := os.ReadFile(f.Path())
	if errors.Is(err, fs.ErrNotExist) {
		return f, nil
	}
	if err != nil {
		return f, err
	}
	if len(raw) == 0 {
		return f, nil
	}
	if err := json.Unmarshal(raw, &f.loaded); err != nil {
		return f, fmt.Errorf("%s: %w", f.Path(), err)
	}
	for _, k := range f.keys() {
		if v, ok := f.loaded[k.name]; ok {
			if err := json.Unmarshal(v, k.into); err != nil {
				return f, fmt.Errorf("%s: %s: %w", f.Path(), k.name, err)
			}
		}
	}
	return f, nil
}

type key struct {
	name string
	into any
}

func (f *File) keys() []key {
	return []key{
		{"auths", &f.Auths},
		{"credsStore", &f.CredsStore},
		{"credHelpers", &f.CredHelpers},
		{"HttpHeaders", &f.HTTPHeaders},
		{"currentContext", &f.CurrentContext},
		{"detachKeys", &f.DetachKeys},
		{"psFormat", &f.PsFormat},
		{"imagesFormat", &f.ImagesFormat},
		{"networksFormat", &f.NetworksFormat},
		{"volumesFormat", &f.VolumesFormat},
		{"statsFormat", &f.StatsFormat},
		{"cliPluginsExtraDirs", &f.PluginsExtraDirs},
		{"pruneFilters", &f.PruneFilters},
		{"aliases", &f.Aliases},
		{"proxies", &f.Proxies},
	}
}

// Path returns the path of config.json.
func (f *File) Path() string { return filepath.Join(f.Dir, "config.json") }

// Set replaces one key for the next Save; nil removes it.
func (f *File) Set(name string, value any) error {
	if value == nil {
		f.replaced[name] = nil
		return nil
	}
	raw, err := json.Marshal(value)
	if err != nil {
		return err
	}
	f.replaced[name] = raw
	return nil
}

// Save writes config.json, mode 0600, in one step: readers see the old file or
// the new one. A symbolic link is followed, not replaced.
func (f *File) Save() error {
	for k, v := range f.replaced {
		if v == nil {
			delete(f.loaded, k)
			continue
		}
		f.loaded[k] = v
	}
	raw, err := json.MarshalIndent(f.loaded, "", "\t")
	if err != nil {
		return err
	}
	path := f.Path()
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	return writeFile(path, raw)
}

func writeFile(path string, raw []byte) (err error) {
	tmp, err := os.CreateTemp(filepath.Dir(path), ".config-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(tmp.Name())
		}
	}()
	if _, err = tmp.Write(raw); err != nil {
		_ = tmp.Close()
		return err
	}
	if err = tmp.Close(); err != nil {
		return err
	}
	return os.Rename(tmp.Name(), path)
}
