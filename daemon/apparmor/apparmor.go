// Package apparmor keeps the default profile of containers in the kernel, on
// hosts whose kernel confines by AppArmor and that have the parser of profiles.
// It knows nothing of containers; the profile's text is that of
// github.com/moby/profiles, under the name that the field knows.
package apparmor

import (
	"fmt"
	"os"
	"os/exec"
	"strings"

	"github.com/moby/profiles/apparmor"
)

// Default is the profile of containers that name none.
const Default = "docker-default"

// Supported tells whether containers can be confined here. Where they cannot
// there is no default profile, but those that somebody else loaded can be used
// by name.
func Supported() bool { return enabled() && Lack() == "" }

// Lack says what keeps a kernel that has AppArmor from confining containers;
// empty if nothing does, and if the kernel has none.
func Lack() string {
	if !enabled() {
		return ""
	}
	if _, err := os.Stat("/sys/kernel/security/apparmor/profiles"); err != nil {
		return "its files are not mounted at /sys/kernel/security"
	}
	if _, err := exec.LookPath("apparmor_parser"); err != nil {
		return "apparmor_parser is not installed"
	}
	return ""
}

// enabled tells whether the kernel has AppArmor switched on.
func enabled() bool {
	b, err := os.ReadFile("/sys/module/apparmor/parameters/enabled")
	return err == nil && strings.HasPrefix(string(b), "Y")
}

// Ensure loads the default profile unless the kernel has one of that name: a
// restart of the host's AppArmor service may take it away at any time.
func Ensure() error {
	loaded, err := apparmor.IsLoaded(Default)
	if err != nil {
		return fmt.Errorf("read the AppArmor profiles of the kernel: %w", err)
	}
	if loaded {
		return nil
	}
	if err := apparmor.InstallDefault(Default); err != nil {
		return fmt.Errorf("load the AppArmor profile %s: %w", Default, err)
	}
	return nil
}
