// Package conformance runs the field's own test suites against the built
// binaries.
package conformance
