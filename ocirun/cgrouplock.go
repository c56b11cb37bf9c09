package ocirun

import "sync"

// cgroupLocks keep the removal of a cgroup apart from the making of one of the
// same name: a container that is started again while its earlier life is still
// being cleaned up would lose the directories it is about to enter.
type cgroupLocks struct {
	mu    sync.Mutex
	paths map[string]*cgroupLock
}

type cgroupLock struct {
	sync.Mutex
	users int
}

// lock takes the lock of one cgroup; the caller calls unlock once.
func (l *cgroupLocks) lock(path string) (unlock func()) {
	l.mu.Lock()
	if l.paths == nil {
		l.paths = map[string]*cgroupLock{}
	}
	c := l.paths[path]
	if c == nil {
		c = &cgroupLock{}
		l.paths[path] = c
	}
	c.users++
	l.mu.Unlock()
	c.Lock()
	return func() {
		c.Unlock()
		l.mu.Lock()
		defer l.mu.Unlock()
		if c.users--; c.users == 0 {
			delete(l.paths, path)
		}
	}
}
