package testenv

import (
	"context"
	"sync"
	"testing"

	"github.com/wherry-engine/wherry/fixtures"
)

// The images and the registries that only serve them are made once per test
// process; the registries end with it.
var (
	images = sync.OnceValues(func() (*fixtures.Set, error) {
		return fixtures.Build(context.Background(), func(string, ...any) {})
	})
	plain = sync.OnceValues(func() (*fixtures.Registry, error) { return serve(false) })
	tls   = sync.OnceValues(func() (*fixtures.Registry, error) { return serve(true) })
)

func serve(secure bool) (*fixtures.Registry, error) {
	set, err := images()
	if err != nil {
		return nil, err
	}
	return fixtures.StartRegistry(context.Background(), fixtures.RegistryOptions{Storage: set.Storage, TLS: secure, Auth: secure})
}

// Images tells what the registries hold.
func Images(t testing.TB) *fixtures.Set {
	t.Helper()
	set, err := images()
	if err != nil {
		t.Fatalf("fixtures: %v", err)
	}
	return set
}

// Registry serves the fixtures over plain HTTP; it must not be pushed to.
func Registry(t testing.TB) *fixtures.Registry {
	t.Helper()
	return must(t, plain)
}

// SecureRegistry serves them over TLS to fixtures.User alone.
func SecureRegistry(t testing.TB) *fixtures.Registry {
	t.Helper()
	return must(t, tls)
}

// EmptyRegistry is a registry of the test's own, to push to.
func EmptyRegistry(t testing.TB, opts fixtures.RegistryOptions) *fixtures.Registry {
	t.Helper()
	r, err := fixtures.StartRegistry(context.Background(), opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	return r
}

func must(t testing.TB, get func() (*fixtures.Registry, error)) *fixtures.Registry {
	t.Helper()
	r, err := get()
	if err != nil {
		t.Fatalf("registry: %v", err)
	}
	return r
}

// CloseRegistries ends the shared registries; TestMain calls it last.
func CloseRegistries() {
	for _, get := range []func() (*fixtures.Registry, error){plain, tls} {
		if r, err := get(); err == nil {
			_ = r.Close()
		}
	}
}
