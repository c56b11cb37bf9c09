package bridge

import (
	"context"
	"fmt"
	"sync"
	"testing"

	apinetwork "github.com/moby/moby/api/types/network"

	"github.com/wherry-engine/wherry/network"
)

// TestStress opens and closes from many sides while networks come and go.
func TestStress(t *testing.T) {
	h := newHost(t, nil)
	h.network("busy", func(r *apinetwork.CreateRequest) { r.EnableIPv6 = yes() })
	ctx := context.Background()
	const workers, rounds = 8, 12
	var wg sync.WaitGroup
	for w := range workers {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for i := range rounds {
				id := newID()
				req := network.SandboxRequest{ID: network.SandboxID(id), ContainerID: id, ContainerName: fmt.Sprintf("c%d-%d", w, i)}
				switch i % 3 {
				case 0:
					req.Endpoints = on("bridge")
				case 1:
					req.Endpoints, req.Ports = on("bridge"), publishPorts("", "", "80/tcp", "", "", "53/udp")
				case 2:
					req.Endpoints, req.Ports = on("busy", "bridge"), publishPorts("", "", "80/tcp")
				}
				_, ns, err := h.sb.Open(ctx, req)
				if err != nil {
					t.Errorf("open: %v", err)
					return
				}
				if i%4 == 0 {
					if err := h.sb.Rename(ctx, req.ID, "x"+req.ContainerName); err != nil {
						t.Errorf("rename: %v", err)
					}
				}
				if err := h.sb.Close(ctx, req.ID); err != nil {
					t.Errorf("close: %v", err)
				}
				_ = ns.Close()
			}
		}()
	}
	for i := range 6 {
		name := fmt.Sprintf("fleeting%d", i)
		if _, err := h.m.Create(ctx, apinetwork.CreateRequest{Name: name}); err != nil {
			t.Errorf("create: %v", err)
		}
		if _, err := h.m.List(ctx); err != nil {
			t.Error(err)
		}
		if err := h.m.Delete(ctx, name); err != nil {
			t.Errorf("delete: %v", err)
		}
	}
	wg.Wait()
	for _, name := range []string{"bridge", "busy"} {
		n, err := h.m.Get(ctx, name)
		check(t, err)
		if len(n.Containers) != 0 {
			t.Errorf("%d containers are left in %s", len(n.Containers), name)
		}
		for s, st := range n.Status.IPAM.Subnets {
			if s.Addr().Is4() && st.IPsInUse != 3 {
				t.Errorf("%d addresses of %s are left in use", st.IPsInUse, s)
			}
		}
	}
}
