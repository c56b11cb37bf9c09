package opts

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/blkiodev"
	"github.com/moby/moby/api/types/container"
)

// Devices parses the values of --device: HOST[:CONTAINER[:rwm]], or a CDI name
// such as vendor.com/class=name.
func Devices(specs []string) ([]container.DeviceMapping, []container.DeviceRequest, error) {
	var maps []container.DeviceMapping
	var cdi []string
	for _, s := range specs {
		if isCDI(s) {
			cdi = append(cdi, s)
			continue
		}
		m, err := device(s)
		if err != nil {
			return nil, nil, err
		}
		maps = append(maps, m)
	}
	if cdi == nil {
		return maps, nil, nil
	}
	return maps, []container.DeviceRequest{{Driver: "cdi", DeviceIDs: cdi}}, nil
}

func isCDI(s string) bool {
	kind, name, ok := strings.Cut(s, "=")
	vendor, class, slash := strings.Cut(kind, "/")
	return ok && slash && name != "" && class != "" && vendor != "" && !strings.Contains(class, "/")
}

func device(s string) (container.DeviceMapping, error) {
	m := container.DeviceMapping{CgroupPermissions: "rwm"}
	parts := strings.Split(s, ":")
	switch len(parts) {
	case 3:
		m.PathInContainer, m.CgroupPermissions = parts[1], parts[2]
	case 2:
		if deviceMode(parts[1]) {
			m.CgroupPermissions = parts[1]
		} else {
			m.PathInContainer = parts[1]
		}
	case 1:
	default:
		return m, invalidf("invalid device specification: %s", s)
	}
	m.PathOnHost = parts[0]
	if m.PathInContainer == "" {
		m.PathInContainer = m.PathOnHost
	}
	if m.PathOnHost == "" || m.CgroupPermissions == "" || !deviceMode(m.CgroupPermissions) {
		return m, invalidf("invalid device specification: %s", s)
	}
	return m, nil
}

func deviceMode(s string) bool { return s != "" && strings.Trim(s, "rwm") == "" && len(s) <= 3 }

// WeightDevices parses DEVICE:WEIGHT values.
func WeightDevices(specs []string) ([]*blkiodev.WeightDevice, error) {
	var all []*blkiodev.WeightDevice
	for _, s := range specs {
		dev, val, ok := strings.Cut(s, ":")
		n, err := strconv.ParseUint(val, 10, 16)
		if !ok || !strings.HasPrefix(dev, "/dev/") || err != nil || (n > 0 && (n < 10 || n > 1000)) {
			return nil, invalidf("invalid weight for device: %s", s)
		}
		all = append(all, &blkiodev.WeightDevice{Path: dev, Weight: uint16(n)})
	}
	return all, nil
}

// Throttles parses DEVICE:RATE values; the rate is in bytes, or a plain number
// of operations.
func Throttles(specs []string, bytes bool) ([]*blkiodev.ThrottleDevice, error) {
	var all []*blkiodev.ThrottleDevice
	for _, s := range specs {
		dev, val, ok := strings.Cut(s, ":")
		var n uint64
		var err error
		if bytes {
			var i int64
			i, err = units.RAMInBytes(val)
			n = uint64(max(i, 0))
		} else {
			n, err = strconv.ParseUint(val, 10, 64)
		}
		if !ok || !strings.HasPrefix(dev, "/dev/") || err != nil {
			return nil, invalidf("invalid rate for device: %s. The correct format is <device-path>:<number>", s)
		}
		all = append(all, &blkiodev.ThrottleDevice{Path: dev, Rate: n})
	}
	return all, nil
}

// GPUs is the flag --gpus: "all", a count, or CSV fields.
type GPUs []container.DeviceRequest

// Type is the word that help shows.
func (*GPUs) Type() string { return "gpu-request" }

// String shows nothing before the first Set.
func (g *GPUs) String() string {
	if len(*g) == 0 {
		return ""
	}
	return fmt.Sprint(*g)
}

// Set parses one value.
func (g *GPUs) Set(v string) error {
	fields, err := Fields(v)
	if err != nil {
		return err
	}
	r := container.DeviceRequest{}
	seen := map[string]bool{}
	for _, f := range fields {
		key, val, has := strings.Cut(f, "=")
		if !has {
			key, val = "count", f
		}
		if seen[key] {
			return invalidf("gpu request key '%s' can be specified only once", key)
		}
		seen[key] = true
		if err := gpuField(&r, key, val); err != nil {
			return err
		}
	}
	if !seen["count"] && r.DeviceIDs == nil {
		r.Count = 1
	}
	if r.Capabilities == nil {
		r.Capabilities = [][]string{{"gpu"}}
	}
	*g = append(*g, r)
	return nil
}

func gpuField(r *container.DeviceRequest, key, val string) error {
	switch key {
	case "driver":
		r.Driver = val
	case "count":
		if val == "all" {
			r.Count = -1
			return nil
		}
		n, err := strconv.Atoi(val)
		if err != nil {
			return invalidf("invalid count (%s): value must be either \"all\" or an integer", val)
		}
		r.Count = n
	case "device":
		r.DeviceIDs = strings.Split(val, ",")
	case "capabilities":
		r.Capabilities = [][]string{append(strings.Split(val, ","), "gpu")}
	case "options":
		for _, kv := range strings.Split(val, ",") {
			setPair(&r.Options, kv)
		}
	default:
		return invalidf("unexpected key '%s' in '%s=%s'", key, key, val)
	}
	return nil
}
