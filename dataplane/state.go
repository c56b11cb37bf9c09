package dataplane

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/wherry-engine/wherry/dataplane/nameserver"
	"github.com/wherry-engine/wherry/dataplane/proxy"
	"github.com/wherry-engine/wherry/dataplane/wire"
	"github.com/wherry-engine/wherry/network/ports"
)

// portKey is a port of the host.
type portKey struct {
	proto uint8
	host  netip.AddrPort
}

// sandbox is what the helper does for one.
type sandbox struct {
	mu    sync.Mutex // serialises changes
	have  wire.Sandbox
	ports map[portKey]proxy.Forwarder
	dns   *nameserver.Service
	// What the keeper holds for it, duplicates of the above.
	kept map[string]int
}

// state is all sandboxes.
type state struct {
	log   *slog.Logger
	names *nameserver.Server
	store *store

	mu        sync.Mutex
	sandboxes map[string]*sandbox
}

func newState(log *slog.Logger, st *store) *state {
	return &state{log: log, names: nameserver.NewServer(), store: st, sandboxes: map[string]*sandbox{}}
}

// get returns a sandbox, made if need be.
func (s *state) get(id string) *sandbox {
	s.mu.Lock()
	defer s.mu.Unlock()
	sb := s.sandboxes[id]
	if sb == nil {
		sb = &sandbox{ports: map[portKey]proxy.Forwarder{}, kept: map[string]int{}}
		s.sandboxes[id] = sb
	}
	return sb
}

func (s *state) list() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]string, 0, len(s.sandboxes))
	for id := range s.sandboxes {
		out = append(out, id)
	}
	slices.Sort(out)
	return out
}

// put makes or changes a sandbox; it takes the descriptors over.
func (s *state) put(req wire.Sandbox, files []int) (err error) {
	want := 0
	for _, p := range req.Ports {
		if p.New {
			want++
		}
	}
	if req.NewDNS {
		want += 2
	}
	if req.ID == "" || want != len(files) {
		wire.CloseAll(files)
		return fmt.Errorf("sandbox %q came with %d descriptors instead of %d", req.ID, len(files), want)
	}
	sb := s.get(req.ID)
	sb.mu.Lock()
	defer sb.mu.Unlock()
	if req.DNS == nil {
		req.DNS = sb.have.DNS // a change of names alone
	}
	s.names.Index.Put(req)
	err = sb.setPorts(req.Ports, files)
	if req.NewDNS {
		fds := files[len(files)-2:]
		err = errors.Join(err, s.serveNames(sb, req.ID, fds[0], fds[1]))
	}
	sb.have = req
	for i := range sb.have.Ports {
		sb.have.Ports[i].New = false
	}
	sb.have.NewDNS = false
	return errors.Join(err, s.store.save(sb))
}

// serveNames starts the name server of a sandbox anew.
func (s *state) serveNames(sb *sandbox, id string, udp, tcp int) error {
	if sb.dns != nil {
		_ = sb.dns.Close()
		sb.dns = nil
	}
	sb.keep(keyUDP, udp)
	sb.keep(keyTCP, tcp)
	sv, err := s.names.Serve(id, udp, tcp)
	if err != nil {
		return fmt.Errorf("serve names: %w", err)
	}
	sb.dns = sv
	return nil
}

// setPorts starts new ports, changes the target of old ones and ends those
// that are not listed. Called with sb.mu held.
func (sb *sandbox) setPorts(list []wire.Port, files []int) error {
	var errs []error
	wanted := map[portKey]bool{}
	for _, p := range list {
		k := portKey{p.Proto, p.Host}
		wanted[k] = true
		if !p.New {
			if f := sb.ports[k]; f != nil {
				f.SetTarget(p.Target)
			}
			continue
		}
		fd := files[0]
		files = files[1:]
		errs = append(errs, sb.addPort(k, fd, p.Target))
	}
	for k := range sb.ports {
		if !wanted[k] {
			errs = append(errs, sb.endPort(k))
		}
	}
	return errors.Join(errs...)
}

func (sb *sandbox) addPort(k portKey, fd int, target netip.AddrPort) error {
	if f := sb.ports[k]; f != nil {
		// A repeated request: a port has one socket, whoever sends it.
		f.SetTarget(target)
		return unix.Close(fd)
	}
	if k.proto == unix.IPPROTO_TCP {
		// A UDP port must be free when we close it, so the keeper has none of those.
		sb.keep(keyPort+k.host.String(), fd)
	}
	f, err := proxy.Listen(k.proto, fd, target)
	if err != nil {
		return fmt.Errorf("serve port %s: %w", k.host, err)
	}
	sb.ports[k] = f
	return nil
}

func (sb *sandbox) endPort(k portKey) error {
	f := sb.ports[k]
	delete(sb.ports, k)
	sb.unkeep(keyPort + k.host.String())
	return f.Close()
}

// drop ends a sandbox. On return its ports are free.
func (s *state) drop(id string) error {
	s.mu.Lock()
	sb := s.sandboxes[id]
	s.mu.Unlock()
	if sb == nil {
		return nil
	}
	sb.mu.Lock()
	defer sb.mu.Unlock()
	s.names.Index.Drop(id)
	var errs []error
	for k := range sb.ports {
		errs = append(errs, sb.endPort(k))
	}
	if sb.dns != nil {
		errs = append(errs, sb.dns.Close())
	}
	sb.unkeepAll()
	s.mu.Lock()
	delete(s.sandboxes, id)
	s.mu.Unlock()
	return errors.Join(append(errs, s.store.drop(id))...)
}

// close ends everything.
func (s *state) close() {
	for _, id := range s.list() {
		if err := s.drop(id); err != nil {
			s.log.Warn("cannot release a sandbox", "sandbox", id, "err", err)
		}
	}
}

// retire leaves everything to a next helper that runs beside this one, but the
// connections that are carried: it returns when they have ended, or with ctx.
func (s *state) retire(ctx context.Context) error {
	var carried sync.WaitGroup
	s.mu.Lock()
	for _, sb := range s.sandboxes {
		sb.mu.Lock() // nobody changes it any more
		for k, f := range sb.ports {
			if k.proto == unix.IPPROTO_UDP {
				f.Retire()
			} else {
				carried.Go(f.Retire)
			}
		}
		if sb.dns != nil {
			_ = sb.dns.Close() // whoever asked asks again
		}
		sb.unkeepAll()
		sb.mu.Unlock()
	}
	s.mu.Unlock()
	s.store.leave() // the keeper takes it as the sign to start the next
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		carried.Wait()
	}()
	select {
	case <-ended:
	case <-ctx.Done():
	}
	return nil
}

// restore takes up what an earlier helper had: its descriptors come from the
// keeper, UDP ports are bound again.
func (s *state) restore() error {
	list, err := s.store.load()
	if err != nil {
		return err
	}
	// All names first: a question that waits must not find half of them.
	for _, sv := range list {
		s.names.Index.Put(sv.sandbox)
	}
	for _, sv := range list {
		if err := s.restoreOne(sv); err != nil {
			s.log.Warn("a sandbox is not as it was", "sandbox", sv.sandbox.ID, "err", err)
		}
	}
	return nil
}

func (s *state) restoreOne(sv saved) error {
	req := sv.sandbox
	var files []int
	var errs []error
	var kept []wire.Port
	for _, p := range req.Ports {
		fd, ok := sv.take(keyPort + p.Host.String())
		if !ok || p.Proto == unix.IPPROTO_UDP {
			var err error
			fd, err = ports.Bind(ports.Key{Proto: p.Proto, Addr: p.Host.Addr(), Port: p.Host.Port()})
			if err != nil {
				errs = append(errs, err)
				continue
			}
		}
		p.New = true
		kept = append(kept, p)
		files = append(files, fd)
	}
	req.Ports = kept
	udp, ok1 := sv.take(keyUDP)
	tcp, ok2 := sv.take(keyTCP)
	if ok1 && ok2 {
		req.NewDNS = true
		files = append(files, udp, tcp)
	}
	sv.closeRest()
	return errors.Join(append(errs, s.put(req, files))...)
}
