package cli

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/containerd/errdefs"

	"github.com/wherry-engine/wherry/cli/config"
	"github.com/wherry-engine/wherry/cli/opts"
	"github.com/wherry-engine/wherry/client"
	"github.com/wherry-engine/wherry/internal/version"
)

const (
	defaultSocket = "/run/wherry.sock"
	dockerSocket  = "/var/run/docker.sock"
)

// client returns the connection to the chosen daemon, made once.
func (a *app) client() (*client.Client, error) {
	if a.cl != nil {
		return a.cl, nil
	}
	o, err := a.clientOptions()
	if err == nil {
		a.cl, err = client.New(o)
	}
	if err != nil {
		return nil, fmt.Errorf("Failed to initialize: unable to resolve docker endpoint: %w", err) //nolint:staticcheck // Docker's words
	}
	return a.cl, nil
}

func (a *app) clientOptions() (client.Options, error) {
	o := client.Options{
		Version:   os.Getenv("DOCKER_API_VERSION"),
		UserAgent: "Wherry-Client/" + version.Version + " (linux)",
		Headers:   a.headers(),
	}
	switch a.flags.logLevel {
	case "", "debug", "info", "warn", "error", "fatal":
	default:
		return o, invalidf("unable to parse logging level: %s", a.flags.logLevel)
	}
	name, err := a.contextName()
	if err != nil {
		return o, err
	}
	if name != config.DefaultContext {
		return a.contextOptions(o, name)
	}
	if o.Host, err = a.defaultHost(); err != nil {
		return o, err
	}
	if a.wantTLS() {
		o.TLS, err = a.tlsConfig()
	}
	return o, err
}

// headers are those of config.json, or of $DOCKER_CUSTOM_HEADERS: NAME=VALUE
// fields separated by commas, quoted as in CSV.
func (a *app) headers() map[string]string {
	env := os.Getenv("DOCKER_CUSTOM_HEADERS")
	if env == "" {
		return a.config().HTTPHeaders
	}
	fields, err := opts.Fields(env)
	if err != nil {
		fmt.Fprintf(a.err, "WARNING: Ignoring custom headers from DOCKER_CUSTOM_HEADERS: %v\n", err)
		return nil
	}
	h := map[string]string{}
	for _, f := range fields {
		k, v, _ := strings.Cut(f, "=")
		h[strings.TrimSpace(k)] = v
	}
	return h
}

// contextName chooses: --context, then "default" if a host is named by flag or
// environment, then $DOCKER_CONTEXT, then config.json.
func (a *app) contextName() (string, error) {
	switch {
	case a.flags.context != "" && len(a.flags.hosts) > 0:
		return "", errors.New("conflicting options: cannot specify both --host and --context")
	case a.flags.context != "":
		return a.flags.context, nil
	case len(a.flags.hosts) > 0, os.Getenv("WHERRY_HOST") != "", os.Getenv("DOCKER_HOST") != "":
		return config.DefaultContext, nil
	case os.Getenv("DOCKER_CONTEXT") != "":
		return os.Getenv("DOCKER_CONTEXT"), nil
	case a.config().CurrentContext != "":
		return a.config().CurrentContext, nil
	}
	return config.DefaultContext, nil
}

// defaultHost is the host of the context "default".
func (a *app) defaultHost() (string, error) {
	if len(a.flags.hosts) > 1 {
		return "", errors.New("specify only one -H")
	}
	host := ""
	for _, h := range append(append([]string(nil), a.flags.hosts...), os.Getenv("WHERRY_HOST"), os.Getenv("DOCKER_HOST")) {
		if host = strings.TrimSpace(h); host != "" {
			break
		}
	}
	switch {
	case host != "":
		return a.fullHost(host)
	case a.name == "docker" && !exists(defaultSocket) && exists(dockerSocket):
		return "unix://" + dockerSocket, nil
	}
	return "unix://" + defaultSocket, nil
}

// fullHost completes short forms: a path, host:port, "unix://", "tcp://".
func (a *app) fullHost(h string) (string, error) {
	port := "2375"
	if a.wantTLS() {
		port = "2376"
	}
	scheme, rest, ok := strings.Cut(h, "://")
	switch {
	case !ok && strings.HasPrefix(h, "/"):
		return "unix://" + h, nil
	case !ok:
		scheme, rest = "tcp", h
	}
	switch scheme {
	case "unix":
		if rest == "" {
			rest = defaultSocket
		}
	case "tcp":
		if rest == "" || strings.HasPrefix(rest, ":") {
			rest = "localhost" + rest
		}
		if i := strings.LastIndexByte(rest, ':'); i < 0 || strings.HasSuffix(rest, "]") {
			rest += ":" + port
		}
	case "http", "https", "ssh":
	default:
		return "", fmt.Errorf("invalid bind address format: %s", h)
	}
	return scheme + "://" + rest, nil
}

func (a *app) contextOptions(o client.Options, name string) (client.Options, error) {
	c, err := a.config().Context(name)
	if err != nil {
		return o, err
	}
	ep := c.Endpoints["docker"]
	o.Host = ep.Host
	if o.Host == "" {
		return o, fmt.Errorf("context %q has no docker endpoint: %w", name, errdefs.ErrInvalidArgument)
	}
	if dir := c.TLSDir(); dir != "" {
		o.TLS, err = loadTLS(filepath.Join(dir, "ca.pem"), filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem"), !ep.SkipTLSVerify)
	}
	return o, err
}

func (a *app) wantTLS() bool {
	return a.flags.tls || a.flags.tlsVerify || os.Getenv("DOCKER_TLS_VERIFY") != "" || os.Getenv("DOCKER_TLS") != ""
}

func (a *app) tlsConfig() (*tls.Config, error) {
	dir := os.Getenv("DOCKER_CERT_PATH")
	if dir == "" {
		dir = a.config().Dir
	}
	pick := func(given, name string) string {
		if given != "" {
			return given
		}
		return filepath.Join(dir, name)
	}
	verify := a.flags.tlsVerify || os.Getenv("DOCKER_TLS_VERIFY") != ""
	return loadTLS(pick(a.flags.tlsCA, "ca.pem"), pick(a.flags.tlsCert, "cert.pem"), pick(a.flags.tlsKey, "key.pem"), verify)
}

// loadTLS reads certificates. Without verification a missing file is no error.
func loadTLS(ca, cert, key string, verify bool) (*tls.Config, error) {
	conf := &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: !verify} //nolint:gosec // --tls without --tlsverify says so
	pem, err := os.ReadFile(ca)
	switch {
	case err == nil:
		conf.RootCAs = x509.NewCertPool()
		if !conf.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("no certificate in %s", ca)
		}
	case verify || !errors.Is(err, fs.ErrNotExist):
		return nil, err
	}
	pair, err := tls.LoadX509KeyPair(cert, key)
	switch {
	case err == nil:
		conf.Certificates = []tls.Certificate{pair}
	case !errors.Is(err, fs.ErrNotExist):
		return nil, err
	}
	return conf, nil
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
