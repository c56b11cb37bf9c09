// Package client is a thin HTTP client of the Engine API, over a unix socket,
// TCP, TLS or SSH.
//
// It owns connecting, version negotiation, error classes and hijacked streams.
// It does not own endpoints: callers name paths as the API documents them and
// decode into the types of github.com/moby/moby/api. Nothing here retries,
// logs or prints.
//
// Negotiation costs no round trip in the usual case: the first request carries
// the newest version this client knows; an older daemon refuses it and names
// its own version in the Api-Version header, and the request is sent again
// with that one. Requests whose body can be read only once are preceded by a
// ping instead.
package client
