package main

import (
	"crypto/rand"
	"fmt"

	"github.com/containerd/errdefs"

	"github.com/wherry-engine/wherry/internal/state"
)

// engineID returns the engine's own ID, a UUID made at the first start.
func engineID(s *state.Store) (string, error) {
	id, err := s.Get("engine", "id")
	if err == nil {
		return string(id), nil
	}
	if !errdefs.IsNotFound(err) {
		return "", fmt.Errorf("read engine ID: %w", err)
	}
	var b [16]byte
	rand.Read(b[:]) // never fails
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	text := fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
	if err := s.PutDurable("engine", "id", []byte(text)); err != nil {
		return "", fmt.Errorf("keep engine ID: %w", err)
	}
	return text, nil
}
