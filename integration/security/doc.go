// Package security attacks built daemons and runtimes from inside containers,
// images and archives, one test per class of published vulnerability. A canary
// on the host tells whether an attack got out. The attacks are carried out by
// the program in probe, which the tests put into images of their own.
package security
