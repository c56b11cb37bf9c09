// Package registry is the area of image registries: registry/client talks to
// them for pull, push, login, search and inspection.
package registry
