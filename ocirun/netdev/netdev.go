// Package netdev moves network devices of the host into a container's network
// namespace, as linux.netDevices of a specification asks (config-linux.md,
// "Network Devices"). It makes and configures nothing beyond that.
package netdev

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Check refuses names that no device can have. InvalidArgument.
func Check(devices map[string]specs.LinuxNetDevice) error {
	for host, d := range devices {
		for _, name := range []string{host, target(host, d)} {
			if name == "" || len(name) >= unix.IFNAMSIZ || name == "." || name == ".." || strings.ContainsAny(name, "/: \t\n\v\f\r") {
				return fmt.Errorf("network device %q: bad name %q: %w", host, name, errdefs.ErrInvalidArgument)
			}
		}
		if strings.Contains(host, "%") || strings.Count(d.Name, "%") != strings.Count(d.Name, "%d") || strings.Count(d.Name, "%") > 1 {
			return fmt.Errorf("network device %q: a template has one %%d: %w", host, errdefs.ErrInvalidArgument)
		}
	}
	return nil
}

// target is the name in the container.
func target(host string, d specs.LinuxNetDevice) string {
	if d.Name != "" {
		return d.Name
	}
	return host
}

// Move takes the devices out of the namespace of one socket into the other,
// which netns is a descriptor of, with their permanent global addresses, and
// brings them up. AlreadyExists if a name is taken there, NotFound.
func Move(from, to *Socket, netns int, devices map[string]specs.LinuxNetDevice) error {
	for _, host := range slices.Sorted(maps.Keys(devices)) {
		if err := move(from, to, netns, host, target(host, devices[host])); err != nil {
			return fmt.Errorf("network device %s: %w", host, err)
		}
	}
	return nil
}

func move(from, to *Socket, netns int, host, name string) error {
	index, err := from.index(host)
	if errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("not there: %w", errdefs.ErrNotFound)
	}
	if err != nil {
		return err
	}
	addresses, err := from.addresses(index)
	if err != nil {
		return fmt.Errorf("list addresses: %w", err)
	}
	if name, err = to.free(name); err != nil {
		return err
	}
	if err := from.move(index, netns, name); err != nil {
		return fmt.Errorf("move to the container: %w", err)
	}
	if index, err = to.index(name); err != nil {
		return fmt.Errorf("find it in the container: %w", err)
	}
	for _, a := range addresses {
		if err := to.addAddress(index, a); err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("restore an address: %w", err)
		}
	}
	if err := to.up(index); err != nil {
		return fmt.Errorf("bring it up: %w", err)
	}
	return nil
}

// maxUnits is how many devices of one template are tried.
const maxUnits = 8192

// free returns a name that nobody has: the one given, or the first of a template.
func (s *Socket) free(name string) (string, error) {
	prefix, suffix, template := strings.Cut(name, "%d")
	for unit := range maxUnits {
		if template {
			name = prefix + strconv.Itoa(unit) + suffix
		}
		_, err := s.index(name)
		if errors.Is(err, unix.ENODEV) {
			return name, nil
		}
		if err != nil {
			return "", err
		}
		if !template {
			break
		}
	}
	return "", fmt.Errorf("the container has a device %s already: %w", name, errdefs.ErrAlreadyExists)
}
