package config

// Merge returns the configuration in force after a reload: old with what may
// change taken from fresh. changed and fixed name the keys that differ and were
// taken, or differ and need a restart.
func Merge(old *Config, fresh *Loaded) (next *Config, changed, fixed []string) {
	c := *old
	before, after := options(&c), fresh.table
	for i, o := range before {
		if o.key == "" || o.support != works || o.value.String() == after[i].value.String() {
			continue
		}
		if !o.reload {
			fixed = append(fixed, o.key)
			continue
		}
		changed = append(changed, o.key)
	}
	next = &c
	f := fresh.Config
	next.Debug, next.Labels, next.Features = f.Debug, f.Labels, f.Features
	next.ShutdownTimeout, next.LiveRestore = f.ShutdownTimeout, f.LiveRestore
	next.Runtimes, next.DefaultRun = f.Runtimes, f.DefaultRun
	next.Registry = f.Registry
	d, fd := &next.Containers, &f.Containers
	d.CgroupNSMode, d.IPCMode, d.ShmSize, d.StopTimeout = fd.CgroupNSMode, fd.IPCMode, fd.ShmSize, fd.StopTimeout
	return next, changed, fixed
}

// Reloadable returns every reloadable key with its value as text, for the event.
func Reloadable(c *Config) map[string]string {
	attrs := map[string]string{}
	own := *c
	for _, o := range options(&own) {
		if o.reload && o.key != "" {
			attrs[o.key] = o.value.String()
		}
	}
	return attrs
}
