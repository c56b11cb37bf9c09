// Package peers runs Debian's podman, dockerd and containerd with
// wherry-runtime as their OCI runtime.
package peers
