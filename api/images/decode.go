package images

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/registry"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/wherry-engine/wherry/api/route"
	"github.com/wherry-engine/wherry/ociref"
)

func invalid(format string, args ...any) error {
	return fmt.Errorf(format+": %w", append(args, errdefs.ErrInvalidArgument)...)
}

// authOf reads X-Registry-Auth; nil if there are no credentials in it.
func authOf(r *http.Request) (*registry.AuthConfig, error) {
	h := r.Header.Get(registry.AuthHeader)
	if h == "" {
		return nil, nil //nolint:nilnil // no credentials are no error
	}
	raw, err := base64.URLEncoding.DecodeString(h)
	if err != nil {
		raw, err = base64.RawURLEncoding.DecodeString(strings.TrimRight(h, "="))
	}
	var a registry.AuthConfig
	if err == nil {
		err = json.Unmarshal(raw, &a)
	}
	if err != nil {
		return nil, invalid("invalid X-Registry-Auth header: %v", err)
	}
	if a == (registry.AuthConfig{ServerAddress: a.ServerAddress}) {
		return nil, nil //nolint:nilnil // no credentials are no error
	}
	return &a, nil
}

// platformsOf reads the parameters of a name: JSON objects or "os/arch/variant".
func platformsOf(r *http.Request, name string) ([]ocispec.Platform, error) {
	if err := route.Form(r); err != nil {
		return nil, err
	}
	var list []ocispec.Platform
	for _, v := range r.Form[name] {
		if v == "" {
			continue
		}
		p, err := parsePlatform(v)
		if err != nil {
			return nil, err
		}
		list = append(list, p)
	}
	return list, nil
}

func parsePlatform(v string) (ocispec.Platform, error) {
	var p ocispec.Platform
	if strings.HasPrefix(v, "{") {
		if err := json.Unmarshal([]byte(v), &p); err != nil {
			return p, invalid("failed to parse platform: %v", err)
		}
		if p.OS == "" && (p.Architecture != "" || p.Variant != "" || p.OSVersion != "") || p.OS != "" && p.Architecture == "" {
			return p, invalid("both OS and Architecture must be provided")
		}
		return p, nil
	}
	q, err := ociref.ParsePlatform(v)
	return ocispec.Platform{OS: q.OS, Architecture: q.Architecture, Variant: q.Variant, OSVersion: q.OSVersion}, err
}

// platformOf reads at most one platform; nil if none was given.
func platformOf(r *http.Request) (*ocispec.Platform, error) {
	list, err := platformsOf(r, "platform")
	if err != nil || len(list) == 0 {
		return nil, err
	}
	if len(list) > 1 {
		return nil, invalid("multiple platforms are not supported")
	}
	return &list[0], nil
}
