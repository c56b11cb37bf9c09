package ocirun

import (
	"errors"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/wherry-engine/wherry/ocirun/wire"
)

// outfit does for an init in a user namespace what root there may not do for
// itself: it raises limits, and makes the process less likely to be killed when memory
// runs out. The init sets them all the same, and lowers what is to be lower: it may
// need more until then.
func outfit(pid int, p *wire.Process) error {
	for _, r := range p.Rlimits {
		var have unix.Rlimit
		if err := unix.Prlimit(pid, r.Resource, nil, &have); err != nil {
			return fmt.Errorf("read %s: %w", r.Name, err)
		}
		if r.Hard <= have.Max {
			continue
		}
		if err := unix.Prlimit(pid, r.Resource, &unix.Rlimit{Cur: have.Cur, Max: r.Hard}, nil); err != nil && !errors.Is(err, unix.EPERM) {
			return fmt.Errorf("raise %s: %w", r.Name, err) // and what may not be raised is the init's to tell
		}
	}
	if p.OOMScoreAdj == nil {
		return nil
	}
	err := os.WriteFile("/proc/"+strconv.Itoa(pid)+"/oom_score_adj", []byte(strconv.Itoa(int(*p.OOMScoreAdj))), 0)
	if errors.Is(err, os.ErrPermission) {
		return nil
	}
	return err
}
