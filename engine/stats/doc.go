// Package stats reads what a container uses (cpu, memory, block I/O, pids,
// network) from its cgroups and network namespace, in the API's form, on
// cgroup v1 and v2.
package stats
