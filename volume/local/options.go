package local

import (
	"context"
	"fmt"
	"net"
	"os"
	"strings"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// mountSpec is what the options of a volume ask to be mounted.
type mountSpec struct {
	device, fstype string
	flags          uintptr
	propagation    uintptr
	data           []string // options for the file system
}

// parseMount reads the options type, device and o. It returns nil if the
// volume is a plain directory. InvalidArgument.
func parseMount(opts map[string]string) (*mountSpec, error) {
	if len(opts) == 0 {
		return nil, nil
	}
	m := &mountSpec{}
	for k, v := range opts {
		switch k {
		case "type":
			m.fstype = v
		case "device":
			m.device = v
		case "o":
			if err := m.parseFlags(v); err != nil {
				return nil, err
			}
		case "size":
			return nil, fmt.Errorf("option \"size\" of local volumes is not supported by this engine yet: %w", errdefs.ErrNotImplemented)
		default:
			return nil, fmt.Errorf("invalid option: %q: %w", k, errdefs.ErrInvalidArgument)
		}
	}
	for _, required := range []string{"device", "type"} {
		if opts[required] == "" {
			return nil, fmt.Errorf("missing required option: %q: %w", required, errdefs.ErrInvalidArgument)
		}
	}
	return m, nil
}

// mountFlags maps option words to flags; those with clear take the flag away.
var mountFlags = map[string]struct {
	flag  uintptr
	clear bool
}{
	"defaults": {}, "auto": {}, "noauto": {}, "_netdev": {}, "nofail": {},
	"ro": {unix.MS_RDONLY, false}, "rw": {unix.MS_RDONLY, true},
	"nosuid": {unix.MS_NOSUID, false}, "suid": {unix.MS_NOSUID, true},
	"nodev": {unix.MS_NODEV, false}, "dev": {unix.MS_NODEV, true},
	"noexec": {unix.MS_NOEXEC, false}, "exec": {unix.MS_NOEXEC, true},
	"sync": {unix.MS_SYNCHRONOUS, false}, "async": {unix.MS_SYNCHRONOUS, true},
	"dirsync": {unix.MS_DIRSYNC, false},
	"mand":    {unix.MS_MANDLOCK, false}, "nomand": {unix.MS_MANDLOCK, true},
	"noatime": {unix.MS_NOATIME, false}, "atime": {unix.MS_NOATIME, true},
	"nodiratime": {unix.MS_NODIRATIME, false}, "diratime": {unix.MS_NODIRATIME, true},
	"relatime": {unix.MS_RELATIME, false}, "norelatime": {unix.MS_RELATIME, true},
	"strictatime": {unix.MS_STRICTATIME, false}, "nostrictatime": {unix.MS_STRICTATIME, true},
	"bind": {unix.MS_BIND, false}, "rbind": {unix.MS_BIND | unix.MS_REC, false},
}

var propagationFlags = map[string]uintptr{
	"private": unix.MS_PRIVATE, "rprivate": unix.MS_PRIVATE | unix.MS_REC,
	"shared": unix.MS_SHARED, "rshared": unix.MS_SHARED | unix.MS_REC,
	"slave": unix.MS_SLAVE, "rslave": unix.MS_SLAVE | unix.MS_REC,
	"unbindable": unix.MS_UNBINDABLE, "runbindable": unix.MS_UNBINDABLE | unix.MS_REC,
}

func (m *mountSpec) parseFlags(o string) error {
	for word := range strings.SplitSeq(o, ",") {
		if word == "" {
			continue
		}
		if word == "remount" {
			return fmt.Errorf("option \"remount\" cannot be used for a volume: %w", errdefs.ErrInvalidArgument)
		}
		if f, ok := mountFlags[word]; ok {
			if f.clear {
				m.flags &^= f.flag
			} else {
				m.flags |= f.flag
			}
			continue
		}
		if p, ok := propagationFlags[word]; ok {
			m.propagation |= p
			continue
		}
		m.data = append(m.data, word)
	}
	return nil
}

// attach mounts the spec on path, unless something is mounted there already
// (by an earlier use, or before the daemon was restarted).
func (m *mountSpec) attach(ctx context.Context, path string) error {
	on, err := isMounted(path)
	if err != nil || on {
		return err
	}
	data, err := m.resolved(ctx)
	if err != nil {
		return err
	}
	if err := m.mount(path, data); err != nil {
		return err
	}
	if m.propagation != 0 {
		if err := unix.Mount("", path, "", m.propagation, ""); err != nil {
			return &os.PathError{Op: "make propagation of", Path: path, Err: err}
		}
	}
	return nil
}

func (m *mountSpec) mount(path, data string) error {
	wrap := func(err error) error {
		if err == nil {
			return nil
		}
		what := "mount " + m.device + ":" + path
		if data != "" {
			what += ", data: " + redact(data)
		}
		return fmt.Errorf("%s: %w", what, err)
	}
	if err := unix.Mount(m.device, path, m.fstype, m.flags, data); err != nil {
		return wrap(err)
	}
	// A bind mount takes no other flags when it is made.
	rest := m.flags &^ (unix.MS_BIND | unix.MS_REC)
	if m.flags&unix.MS_BIND == 0 || rest == 0 {
		return nil
	}
	err := unix.Mount("", path, "", unix.MS_REMOUNT|unix.MS_BIND|rest, "")
	if err != nil {
		_ = unmountAll(path) // the first error tells more
	}
	return wrap(err)
}

// resolved replaces a host name in addr= of network file systems: the kernel
// takes addresses only.
func (m *mountSpec) resolved(ctx context.Context) (string, error) {
	if !strings.HasPrefix(m.fstype, "nfs") && m.fstype != "cifs" && m.fstype != "smb3" {
		return strings.Join(m.data, ","), nil
	}
	out := make([]string, 0, len(m.data))
	for _, word := range m.data {
		host, ok := strings.CutPrefix(word, "addr=")
		if ok && net.ParseIP(host) == nil {
			ips, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
			if err != nil {
				return "", fmt.Errorf("resolve %s: %w", host, err)
			}
			word = "addr=" + ips[0].Unmap().String()
		}
		out = append(out, word)
	}
	return strings.Join(out, ","), nil
}

// redact hides passwords in an error text.
func redact(data string) string {
	words := strings.Split(data, ",")
	for i, w := range words {
		if strings.HasPrefix(w, "password=") || strings.HasPrefix(w, "pass=") {
			words[i] = "password=********"
		}
	}
	return strings.Join(words, ",")
}
