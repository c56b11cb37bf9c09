package main

// deniedHere: this architecture has no calls from older times.
var deniedHere []call

// otherABIs: a 64-bit process here can make no 32-bit calls.
func otherABIs() []call { return nil }
