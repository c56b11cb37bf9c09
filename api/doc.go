// Package api is the Engine API's server: the one table of routes, the
// negotiation of versions, and the translation of errors to statuses. It holds
// no engine logic: the groups of handlers are in the packages below it, each
// with the small interfaces it needs from the engine.
package api
