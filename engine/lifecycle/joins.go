package lifecycle

import (
	"fmt"
	"os"
	"strings"

	"github.com/containerd/errdefs"
	apicontainer "github.com/moby/moby/api/types/container"

	"github.com/wherry-engine/wherry/container"
	"github.com/wherry-engine/wherry/engine/launch"
)

// resolveModes replaces names in container:NAME modes by IDs. InvalidArgument.
func (e *Engine) resolveModes(h *apicontainer.HostConfig) error {
	if h.NetworkMode.IsContainer() {
		m, err := e.reference(h.NetworkMode.ConnectedContainer(), "joining network namespace of container")
		if err != nil {
			return err
		}
		h.NetworkMode = apicontainer.NetworkMode(m)
	}
	if h.IpcMode.IsContainer() {
		m, err := e.reference(h.IpcMode.Container(), "joining IPC namespace of container")
		if err != nil {
			return err
		}
		u, err := e.index.find(strings.TrimPrefix(m, "container:"))
		if err != nil {
			return err
		}
		if mode := u.spec.Load().HostConfig.IpcMode; !mode.IsShareable() && !mode.IsHost() {
			return invalid("cannot join IPC namespace of container %s: non-shareable IPC (hint: use IpcMode:shareable for the donor container)", h.IpcMode.Container())
		}
		h.IpcMode = apicontainer.IpcMode(m)
	}
	if h.PidMode.IsContainer() {
		m, err := e.reference(h.PidMode.Container(), "joining PID namespace of container")
		if err != nil {
			return err
		}
		h.PidMode = apicontainer.PidMode(m)
	}
	return nil
}

// setHostname gives a container the name it has in its own UTS namespace.
func (e *Engine) setHostname(c *apicontainer.Config, h *apicontainer.HostConfig, id container.ID) {
	switch {
	case c.Hostname != "":
	case h.UTSMode.IsHost(), h.NetworkMode.IsHost():
		c.Hostname, _ = os.Hostname()
	case h.NetworkMode.IsContainer():
		if u, err := e.index.find(h.NetworkMode.ConnectedContainer()); err == nil {
			c.Hostname, c.Domainname = u.spec.Load().Config.Hostname, u.spec.Load().Config.Domainname
		}
	default:
		c.Hostname = id.Short()
	}
}

// reference finds the container that a mode such as container:x names, and
// returns the mode with its full ID. InvalidArgument: clients take NotFound
// for the image, which they would pull.
func (e *Engine) reference(mode, what string) (string, error) {
	u, err := e.index.find(mode)
	if err != nil {
		if errdefs.IsNotFound(err) {
			return "", errdefs.ErrInvalidArgument.WithMessage(fmt.Sprintf("%s: %v", what, err))
		}
		return "", err
	}
	return "container:" + string(u.id), nil
}

// joins finds the containers whose namespaces are shared; they must run. A container
// with a user namespace shares that, too.
func (e *Engine) joins(u *unit, ids container.IDMap) (launch.Joins, error) {
	h := u.spec.Load().HostConfig
	var j joined
	for _, x := range []struct {
		is   bool
		ref  string
		what string
		dst  *string
	}{
		{h.NetworkMode.IsContainer(), h.NetworkMode.ConnectedContainer(), "network", &j.Net},
		{h.PidMode.IsContainer(), h.PidMode.Container(), "PID", &j.PID},
		{h.IpcMode.IsContainer(), h.IpcMode.Container(), "IPC", &j.IPC},
	} {
		if !x.is {
			continue
		}
		other, err := e.index.find(x.ref)
		if err != nil {
			return j.Joins, err
		}
		switch other.status.Load().State {
		case container.StateRunning, container.StatePaused:
			*x.dst = string(other.id)
			if err := j.share(other, ids, x.what); err != nil {
				return j.Joins, err
			}
			if x.what == "IPC" {
				j.Shm = e.shm.Path(other.id)
				if other.spec.Load().HostConfig.IpcMode.IsHost() {
					j.Shm = "/dev/shm"
				}
			}
		case container.StateRestarting:
			return j.Joins, conflict("cannot join %s namespace of container: Container %s is restarting, wait until the container is running", x.what, x.ref)
		default:
			return j.Joins, conflict("cannot join %s namespace of a non running container: %s", x.what, other.name())
		}
	}
	return j.Joins, nil
}
