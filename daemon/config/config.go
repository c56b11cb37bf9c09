// Package config is the daemon's configuration: the flags and the keys of
// daemon.json, one table of both, their validation, and what may change on
// reload. It acts on nothing.
package config

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/docker/go-units"
)

// Config is the effective configuration. Zero values mean "not set" unless the
// table of options gives a default.
type Config struct {
	// ConfigFile is the file that was read; "" if there was none.
	ConfigFile string
	Validate   bool
	Version    bool
	Help       bool

	Hosts     []string
	Group     string
	TLS       TLS
	Pidfile   string
	DataRoot  string
	ExecRoot  string
	Debug     bool
	LogLevel  string
	LogFormat string
	RawLogs   bool
	Labels    []string
	Features  map[string]bool
	// MinAPIVersion is the oldest API version that is accepted.
	MinAPIVersion string
	Experimental  bool
	// ShutdownTimeout is in seconds; negative waits for ever.
	ShutdownTimeout int
	// LiveRestore is nil unless it was set: containers outlive the daemon then, too.
	LiveRestore *bool

	StorageDriver string
	StorageOpts   []string
	Runtimes      map[string]Runtime
	DefaultRun    string
	ExecOpts      []string

	Containers Containers
	Network    Network
	Registry   Registry
	Proxies    Proxies
	Builder    Builder

	// ignored and refused hold values that nothing reads, for options of parts
	// that do not exist here.
	unused unused
}

// TLS of the TCP listeners.
type TLS struct {
	Enabled, Verify bool
	CA, Cert, Key   string
	// verifySet tells that tlsverify was given: it switches TLS on even when false.
	verifySet bool
}

// Containers are the defaults of new containers.
type Containers struct {
	LogDriver       string
	LogOpts         map[string]string
	CgroupParent    string
	CgroupNSMode    string
	IPCMode         string
	ShmSize         int64 // bytes
	StopTimeout     int   // seconds
	Ulimits         map[string]*units.Ulimit
	Init            bool
	NoNewPrivileges bool
	SeccompProfile  string
	// UsernsRemap names whose subordinate users those of containers are; empty for
	// the host's own.
	UsernsRemap       string
	HostGatewayIPs    []netip.Addr
	hostGatewayIPOnce netip.Addr
}

// Network of the default bridge and of all networks.
type Network struct {
	Bridge       string
	BIP          string
	BIP6         string
	FixedCIDR    string
	FixedCIDRv6  string
	Gateway      net.IP
	GatewayV6    net.IP
	DefaultIP    net.IP
	MTU          int
	ICC          bool
	IPMasq       bool
	IPForward    bool
	IPTables     bool
	IP6Tables    bool
	IPv6         bool
	DNS          []netip.Addr
	DNSOpts      []string
	DNSSearch    []string
	Pools        []Pool
	NetworkOpts  map[string]map[string]string
	ForeignRules string // "foreign-firewall": "accept" or "leave"
}

// Pool is a range from which subnets are taken.
type Pool struct {
	Base netip.Prefix `json:"base"`
	Size int          `json:"size"`
}

// Registry of images.
type Registry struct {
	Mirrors             []string
	Insecure            []string
	ConcurrentDownloads int
	ConcurrentUploads   int
	DownloadAttempts    int
}

// Proxies for the daemon's own requests.
type Proxies struct {
	HTTP, HTTPS, No string
}

// Runtime is another OCI runtime: its path, or the type of the shim that calls
// runtimes as we do, with the path as that shim's option BinaryName.
type Runtime struct {
	Path    string         `json:"path,omitempty"`
	Args    []string       `json:"runtimeArgs,omitempty"`
	Type    string         `json:"runtimeType,omitempty"`
	Options map[string]any `json:"options,omitempty"`
}

// UnmarshalJSON refuses keys that mean nothing, but for an empty list args,
// which tools of runtimes write.
func (r *Runtime) UnmarshalJSON(b []byte) error {
	type plain Runtime
	v := struct {
		*plain
		Args2 []string `json:"args"`
	}{plain: (*plain)(r)}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&v); err != nil {
		return err
	}
	if len(v.Args2) > 0 {
		return errors.New("args has no effect: use runtimeArgs")
	}
	return nil
}

const (
	shimType   = "io.containerd.runc.v2"
	binaryName = "BinaryName"
)

// Command is the program and its first arguments; an empty path is the built-in
// runtime, which takes the place of the shim's default.
func (r Runtime) Command() (path string, args []string) {
	if r.Path != "" {
		return r.Path, r.Args
	}
	path, _ = r.Options[binaryName].(string)
	return path, nil
}

func (r Runtime) check() error {
	switch {
	case r.Path == "" && r.Type == "":
		return errors.New("either a runtimeType or a path must be configured")
	case r.Path != "" && r.Type != "":
		return errors.New("cannot configure both path and runtimeType for the same runtime")
	case r.Path != "" && len(r.Options) > 0:
		return errors.New("options cannot be used with a path runtime")
	case r.Type != "" && len(r.Args) > 0:
		return errors.New("args cannot be used with a runtimeType runtime")
	case r.Type != "" && r.Type != shimType:
		return fmt.Errorf("runtimeType %q is not supported by this engine: it has no shims but the equal of %s", r.Type, shimType)
	}
	for name, value := range r.Options {
		if _, ok := value.(string); !ok || name != binaryName {
			return fmt.Errorf("option %s is not supported by this engine: it has %s, a string, only", name, binaryName)
		}
	}
	return nil
}

// Builder is the key of that name; it has no flags.
type Builder struct {
	GC           BuilderGC            `json:"gc"`
	Entitlements *BuilderEntitlements `json:"entitlements"`
	History      *BuilderHistory      `json:"history"`
}

// String is the same for everything that asks for what there is: no collection
// and no limits.
func (b Builder) String() string {
	if b.GC.Enabled != nil && !*b.GC.Enabled {
		b.GC = BuilderGC{}
	}
	text, err := json.Marshal(b)
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// BuilderGC limits the build cache. Sizes are as people write them ("10GB").
type BuilderGC struct {
	Enabled              *bool           `json:"enabled"`
	Policy               []BuilderGCRule `json:"policy"`
	DefaultReservedSpace string          `json:"defaultReservedSpace"`
	DefaultMaxUsedSpace  string          `json:"defaultMaxUsedSpace"`
	DefaultMinFreeSpace  string          `json:"defaultMinFreeSpace"`
	DefaultKeepStorage   string          `json:"defaultKeepStorage"` // older name of DefaultReservedSpace
}

// BuilderGCRule is one rule of the build cache's collector.
type BuilderGCRule struct {
	All           bool           `json:"all"`
	Filter        map[string]any `json:"filter"`
	ReservedSpace string         `json:"reservedSpace"`
	MaxUsedSpace  string         `json:"maxUsedSpace"`
	MinFreeSpace  string         `json:"minFreeSpace"`
	KeepStorage   string         `json:"keepStorage"` // older name of ReservedSpace
}

// BuilderEntitlements allow what builds may ask for.
type BuilderEntitlements struct {
	NetworkHost      *bool `json:"network-host"`
	SecurityInsecure *bool `json:"security-insecure"`
	Device           *bool `json:"device"`
}

// BuilderHistory limits the records of past builds.
type BuilderHistory struct {
	MaxEntries int64  `json:"maxEntries"`
	MaxAge     string `json:"maxAge"`
}

// unused receives the values of options that are warned about or refused.
type unused struct {
	bools   [16]bool
	strings [24]string
	lists   [8][]string
	ints    [8]int
	maps    map[string]string
}
