package store

import "sync"

// keyed is a set of mutexes by name, so that two transfers do not fetch or
// unpack the same thing at once.
type keyed struct {
	mu sync.Mutex
	m  map[string]*keyedLock
}

type keyedLock struct {
	sync.Mutex
	waiters int
}

// lock locks a name and returns the function that unlocks it.
func (k *keyed) lock(name string) func() {
	k.mu.Lock()
	if k.m == nil {
		k.m = map[string]*keyedLock{}
	}
	l := k.m[name]
	if l == nil {
		l = &keyedLock{}
		k.m[name] = l
	}
	l.waiters++
	k.mu.Unlock()
	l.Lock()
	return k.unlocker(name, l)
}

func (k *keyed) unlocker(name string, l *keyedLock) func() {
	return func() {
		l.Unlock()
		k.mu.Lock()
		defer k.mu.Unlock()
		if l.waiters--; l.waiters == 0 {
			delete(k.m, name)
		}
	}
}

// tryLock is lock for those who do not wait; nil if somebody has the name.
func (k *keyed) tryLock(name string) (unlock func()) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.m[name] != nil {
		return nil
	}
	if k.m == nil {
		k.m = map[string]*keyedLock{}
	}
	l := &keyedLock{waiters: 1}
	l.Lock()
	k.m[name] = l
	return k.unlocker(name, l)
}
