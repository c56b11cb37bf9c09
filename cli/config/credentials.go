package config

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strings"

	"github.com/moby/moby/api/types/registry"

	"github.com/wherry-engine/wherry/internal/timerslack"
)

// DockerHub is the key under which credentials of docker.io are kept.
const DockerHub = "https://index.docker.io/v1/"

// tokenUser marks a helper's secret as an identity token.
const tokenUser = "<token>"

// AuthKey returns the key under which a registry's credentials are kept.
func AuthKey(domain string) string {
	switch domain {
	case "", "docker.io", "index.docker.io", "registry-1.docker.io":
		return DockerHub
	}
	return domain
}

// helper names the program that keeps the credentials of key, "" for the file.
func (f *File) helper(key string) string {
	for _, k := range []string{key, hostOf(key)} {
		if h := f.CredHelpers[k]; h != "" {
			return h
		}
	}
	return f.CredsStore
}

// environment returns the entry of $DOCKER_AUTH_CONFIG, which has the form of
// config.json and comes before what is stored.
func environment(key string) (Auth, bool) {
	text := os.Getenv("DOCKER_AUTH_CONFIG")
	if text == "" {
		return Auth{}, false
	}
	var env struct {
		Auths map[string]Auth `json:"auths"`
	}
	if json.Unmarshal([]byte(text), &env) != nil {
		return Auth{}, false
	}
	a, ok := env.Auths[key]
	return a, ok
}

// Credentials returns what is stored for key; the zero value if nothing is.
func (f *File) Credentials(key string) (registry.AuthConfig, error) {
	if a, ok := environment(key); ok {
		return a.decode(key)
	}
	if h := f.helper(key); h != "" {
		return helperGet(h, key)
	}
	a, ok := f.Auths[key]
	if !ok {
		for k, v := range f.Auths {
			if hostOf(k) == hostOf(key) {
				a, ok = v, true
				break
			}
		}
	}
	if !ok {
		return registry.AuthConfig{}, nil
	}
	return a.decode(key)
}

// All returns every credential of the file and of its helpers, by key. Helpers
// that fail are left out, as a build must not depend on them.
func (f *File) All() map[string]registry.AuthConfig {
	all := map[string]registry.AuthConfig{}
	keys := map[string]bool{}
	for k := range f.Auths {
		keys[k] = true
	}
	for k := range f.CredHelpers {
		keys[k] = true
	}
	if f.CredsStore != "" {
		for _, k := range helperList(f.CredsStore) {
			keys[k] = true
		}
	}
	for k := range keys {
		if a, err := f.Credentials(k); err == nil && (a.Username != "" || a.IdentityToken != "" || a.RegistryToken != "") {
			all[k] = a
		}
	}
	return all
}

// Store keeps credentials under key, in its helper or in the file.
func (f *File) Store(key string, a registry.AuthConfig) error {
	if h := f.helper(key); h != "" {
		return helperStore(h, key, a)
	}
	if f.Auths == nil {
		f.Auths = map[string]Auth{}
	}
	f.Auths[key] = Auth{
		Auth:          encodeAuth(a.Username, a.Password),
		IdentityToken: a.IdentityToken,
	}
	if err := f.Set("auths", f.Auths); err != nil {
		return err
	}
	return f.Save()
}

// InFile reports whether Store(key) writes to config.json.
func (f *File) InFile(key string) bool { return f.helper(key) == "" }

// Erase forgets the credentials of key, if there are any.
func (f *File) Erase(key string) error {
	if h := f.helper(key); h != "" {
		return helperErase(h, key)
	}
	found := false
	for k := range f.Auths {
		if k == key || hostOf(k) == hostOf(key) {
			delete(f.Auths, k)
			found = true
		}
	}
	if !found {
		return nil
	}
	if err := f.Set("auths", f.Auths); err != nil {
		return err
	}
	return f.Save()
}

func (a Auth) decode(key string) (registry.AuthConfig, error) {
	out := registry.AuthConfig{
		Username: a.Username, Password: a.Password,
		IdentityToken: a.IdentityToken, RegistryToken: a.RegistryToken, ServerAddress: key,
	}
	if a.Auth == "" {
		return out, nil
	}
	raw, err := base64.StdEncoding.DecodeString(a.Auth)
	if err != nil {
		return out, fmt.Errorf("credentials of %s: %w", key, err)
	}
	user, pass, ok := strings.Cut(string(raw), ":")
	if !ok || user == "" {
		return out, fmt.Errorf("credentials of %s: not of the form user:password", key)
	}
	out.Username, out.Password = user, strings.TrimRight(pass, "\x00")
	return out, nil
}

func encodeAuth(user, pass string) string {
	if user == "" && pass == "" {
		return ""
	}
	return base64.StdEncoding.EncodeToString([]byte(user + ":" + pass))
}

// hostOf strips scheme and path: https://index.docker.io/v1/ is index.docker.io.
func hostOf(key string) string {
	_, rest, ok := strings.Cut(key, "://")
	if !ok {
		rest = key
	}
	host, _, _ := strings.Cut(rest, "/")
	return host
}

type helperCreds struct{ ServerURL, Username, Secret string }

func helperGet(helper, key string) (registry.AuthConfig, error) {
	out, err := runHelper(helper, "get", []byte(key))
	if err != nil {
		if strings.Contains(err.Error(), "credentials not found") { // the protocol has no code for it
			return registry.AuthConfig{}, nil
		}
		return registry.AuthConfig{}, err
	}
	var c helperCreds
	if err := json.Unmarshal(out, &c); err != nil {
		return registry.AuthConfig{}, fmt.Errorf("docker-credential-%s get: %w", helper, err)
	}
	a := registry.AuthConfig{ServerAddress: key, Username: c.Username, Password: c.Secret}
	if c.Username == tokenUser {
		a.Username, a.Password, a.IdentityToken = "", "", c.Secret
	}
	return a, nil
}

func helperStore(helper, key string, a registry.AuthConfig) error {
	c := helperCreds{ServerURL: key, Username: a.Username, Secret: a.Password}
	if a.IdentityToken != "" {
		c.Username, c.Secret = tokenUser, a.IdentityToken
	}
	raw, err := json.Marshal(c)
	if err != nil {
		return err
	}
	_, err = runHelper(helper, "store", raw)
	return err
}

func helperErase(helper, key string) error {
	_, err := runHelper(helper, "erase", []byte(key))
	return err
}

func helperList(helper string) []string {
	out, err := runHelper(helper, "list", nil)
	if err != nil {
		return nil
	}
	var m map[string]string
	if json.Unmarshal(out, &m) != nil {
		return nil
	}
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	return keys
}

func runHelper(helper, verb string, in []byte) ([]byte, error) {
	if strings.ContainsAny(helper, "/\\") {
		return nil, fmt.Errorf("credential helper %q: not a plain name", helper)
	}
	cmd := exec.Command("docker-credential-"+helper, verb) //nolint:noctx // a short dialogue, ended by ctrl-C like us
	cmd.Stdin = bytes.NewReader(in)
	var out, errb bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errb
	if err := timerslack.Start(cmd.Run); err != nil {
		msg := strings.TrimSpace(out.String() + errb.String())
		if msg == "" {
			msg = err.Error()
		}
		return nil, fmt.Errorf("error getting credentials - err: %w, out: `%s`", err, msg)
	}
	return out.Bytes(), nil
}
