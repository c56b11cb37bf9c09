// Package naming makes container IDs and random names, and checks names.
package naming

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"math/big"
	"strings"

	"github.com/containerd/errdefs"

	"github.com/wherry-engine/wherry/container"
)

// NewID returns 64 random hexadecimal digits. IDs whose short form is all
// digits are avoided: they break tools that take them for numbers.
func NewID() container.ID {
	for {
		var b [32]byte
		_, _ = rand.Read(b[:]) // never fails
		id := hex.EncodeToString(b[:])
		if strings.ContainsAny(id[:12], "abcdef") {
			return container.ID(id)
		}
	}
}

// Random returns an adjective and a noun; from the second attempt on, a digit too.
func Random(attempt int) string {
	name := pick(adjectives) + "_" + pick(nouns)
	if attempt > 0 {
		name += fmt.Sprint(number(10))
	}
	return name
}

func pick(words string) string {
	list := strings.Fields(words)
	return list[number(len(list))]
}

func number(n int) int {
	i, err := rand.Int(rand.Reader, big.NewInt(int64(n)))
	if err != nil {
		return 0
	}
	return int(i.Int64())
}

// Allowed is the rule for names, as users are told it.
const Allowed = "[a-zA-Z0-9][a-zA-Z0-9_.-]"

// Check reports whether a name without its slash may be given. InvalidArgument.
func Check(name string) error {
	if Valid(name) {
		return nil
	}
	return errdefs.ErrInvalidArgument.WithMessage(fmt.Sprintf("Invalid container name (%s), only %s are allowed", name, Allowed))
}

// Valid reports whether name obeys Allowed and has at least two characters.
func Valid(name string) bool {
	if len(name) < 2 {
		return false
	}
	for i := range len(name) {
		c := name[i]
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9':
		case i > 0 && (c == '_' || c == '.' || c == '-'):
		default:
			return false
		}
	}
	return true
}
