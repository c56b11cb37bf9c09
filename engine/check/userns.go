package check

import apicontainer "github.com/moby/moby/api/types/container"

// UserNS checks what a container with a user namespace of its own cannot have. At
// its start the daemon may have another configuration than at its creation.
// InvalidArgument, NotImplemented.
func UserNS(h *apicontainer.HostConfig, host Host) error {
	if !host.UserNS || h.UsernsMode.IsHost() {
		return nil
	}
	switch {
	case h.Privileged:
		return invalid("privileged mode is incompatible with user namespaces.  You must run the container in the host namespace when running privileged mode")
	case h.NetworkMode.IsHost():
		return invalid("cannot share the host's network namespace when user namespaces are enabled")
	case h.PidMode.IsHost():
		return invalid("cannot share the host PID namespace when user namespaces are enabled")
	case h.IpcMode.IsHost():
		return invalid("cannot share the host's IPC namespace when user namespaces are enabled: its message queues cannot be mounted in one")
	case host.Runtimes[h.Runtime] != nil:
		return refused("a user namespace with the runtime %q", h.Runtime)
	}
	return nil
}
