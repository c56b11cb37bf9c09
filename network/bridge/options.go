package bridge

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
)

// Driver options of a bridge network.
const (
	optPrefix   = "com.docker.network."
	optDefault  = optPrefix + "bridge.default_bridge"
	optName     = optPrefix + "bridge.name"
	optICC      = optPrefix + "bridge.enable_icc"
	optMasq     = optPrefix + "bridge.enable_ip_masquerade"
	optBind     = optPrefix + "bridge.host_binding_ipv4"
	optMode4    = optPrefix + "bridge.gateway_mode_ipv4"
	optMode6    = optPrefix + "bridge.gateway_mode_ipv6"
	optMTU      = optPrefix + "driver.mtu"
	optIfPrefix = optPrefix + "container_iface_prefix"
	optIPv6     = optPrefix + "enable_ipv6"
	optIPv4     = optPrefix + "enable_ipv4"
)

// maxIfName is the length of a device name, in bytes.
const maxIfName = 15

// options reads the driver options. Those of the driver that are not built are
// refused by name; what belongs to nobody is kept as it is. InvalidArgument,
// NotImplemented, PermissionDenied.
func (r *record) options() error {
	for k, v := range r.Options {
		if err := r.option(k, v); err != nil {
			return err
		}
	}
	return nil
}

func (r *record) option(k, v string) (err error) {
	switch k {
	case optName:
		if !deviceName(v) {
			return invalidOption(k, v, "is not a device name")
		}
		r.Device = v
	case optICC:
		return flag(k, v, func(on bool) { r.NoICC = !on })
	case optMasq:
		return flag(k, v, func(on bool) { r.NoMasq = !on })
	case optIPv4:
		return flag(k, v, func(on bool) { r.EnableIPv4 = on })
	case optIPv6:
		return flag(k, v, func(on bool) { r.EnableIPv6 = on })
	case optDefault:
		on := false
		if err := flag(k, v, func(b bool) { on = b }); err != nil || !on {
			return err
		}
		return errdefs.ErrPermissionDenied.WithMessage("cannot create network: there is one default bridge")
	case optBind:
		if r.BindIP, err = netip.ParseAddr(v); err != nil {
			return invalidOption(k, v, "is not an IP address")
		}
		if r.BindIP == netip.IPv4Unspecified() {
			r.BindIP = netip.Addr{} // all addresses, as by default
		}
	case optMTU, "mtu":
		mtu, err := strconv.Atoi(v)
		if err != nil || mtu < 68 || mtu > 65535 {
			return invalidOption(k, v, "is not an MTU")
		}
		r.MTU = mtu
	case optIfPrefix:
		if !deviceName(v) || len(v) > maxIfName-3 {
			return invalidOption(k, v, "is not the beginning of a device name")
		}
		r.IfPrefix = v
	case optMode4, optMode6:
		if v != "" && v != "nat" {
			return fmt.Errorf("option %s: mode %q is not supported yet: %w", k, v, errdefs.ErrNotImplemented)
		}
	default:
		if strings.HasPrefix(k, optPrefix) {
			return fmt.Errorf("option %s is not supported yet: %w", k, errdefs.ErrNotImplemented)
		}
	}
	return nil
}

func flag(k, v string, set func(bool)) error {
	on, err := strconv.ParseBool(v)
	if err != nil {
		return invalidOption(k, v, "is neither true nor false")
	}
	set(on)
	return nil
}

func invalidOption(k, v, why string) error {
	return fmt.Errorf("option %s: %q %s: %w", k, v, why, errdefs.ErrInvalidArgument)
}

func deviceName(s string) bool {
	if s == "" || s == "." || s == ".." || len(s) > maxIfName {
		return false
	}
	return !strings.ContainsFunc(s, func(c rune) bool { return c <= ' ' || c > '~' || c == '/' || c == ':' || c == '%' })
}
