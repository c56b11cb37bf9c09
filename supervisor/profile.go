package supervisor

import (
	"encoding/json"
	"fmt"
	"sync"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// profileCache holds the seccomp profiles last seen, decoded: they are large,
// and nearly all containers share one.
type profileCache struct {
	mu sync.Mutex
	m  map[string]*specs.LinuxSeccomp
}

func newProfileCache() *profileCache { return &profileCache{m: map[string]*specs.LinuxSeccomp{}} }

// maxProfiles bounds the cache.
const maxProfiles = 8

// decode returns the profile that b encodes. It is shared: nobody changes it.
func (c *profileCache) decode(b []byte) (*specs.LinuxSeccomp, error) {
	c.mu.Lock()
	p := c.m[string(b)]
	c.mu.Unlock()
	if p != nil {
		return p, nil
	}
	p = new(specs.LinuxSeccomp)
	if err := json.Unmarshal(b, p); err != nil {
		return nil, fmt.Errorf("malformed seccomp profile: %w: %w", err, errdefs.ErrInvalidArgument)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.m) >= maxProfiles {
		clear(c.m)
	}
	c.m[string(b)] = p
	return p, nil
}
