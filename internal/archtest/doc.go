// Package archtest checks the shape of the module: who may import whom, how
// much the two small programs may link, that every package says what it is
// for, and what has grown too large. The rules are data, in rules.go, each
// with its reason.
package archtest
