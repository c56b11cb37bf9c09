package client

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/containerd/v2/core/remotes/docker/auth"
	remoteerrors "github.com/containerd/containerd/v2/core/remotes/errors"
	"github.com/containerd/errdefs"

	"github.com/wherry-engine/wherry/ociref"
)

// PullError says what Docker says when a reference cannot be pulled. NotFound
// for what does not exist or is hidden, Unauthenticated for wrong credentials.
func PullError(ref ociref.Reference, hadAuth bool, err error) error {
	if err == nil {
		return nil
	}
	if strings.Contains(err.Error(), "rejecting ") { // the library has no class for it
		return fmt.Errorf("manifest of %s is too large: %s: %w", ref.Familiar(), err.Error(), errdefs.ErrInvalidArgument)
	}
	if errdefs.IsNotFound(err) {
		code, msg := "manifest unknown", "manifest unknown"
		return fmt.Errorf("manifest for %s not found: %s: %s: %w", ref.Familiar(), code, msg, errdefs.ErrNotFound)
	}
	if why, wrong, ok := denied(err, hadAuth); ok {
		if wrong {
			return fmt.Errorf("%s: %w", why, errdefs.ErrUnauthenticated)
		}
		return fmt.Errorf("pull access denied for %s, repository does not exist or may require 'docker login': %s: %w",
			ref.FamiliarName(), why, errdefs.ErrNotFound)
	}
	return transferError(err)
}

// BlobError is PullError for the blobs of a manifest that was found.
func BlobError(ref ociref.Reference, hadAuth bool, err error) error {
	if errdefs.IsNotFound(err) {
		return fmt.Errorf("blob of %s not found: blob unknown: blob unknown to registry: %w", ref.Familiar(), errdefs.ErrNotFound)
	}
	return PullError(ref, hadAuth, err)
}

// PushError says what Docker says when a push is refused.
func PushError(ref ociref.Reference, hadAuth bool, err error) error {
	if err == nil {
		return nil
	}
	if why, wrong, ok := denied(err, hadAuth); ok {
		if wrong {
			return fmt.Errorf("%s: %w", why, errdefs.ErrUnauthenticated)
		}
		return fmt.Errorf("push access denied for %s, repository does not exist or may require authorization: %s: %w",
			ref.FamiliarName(), why, errdefs.ErrPermissionDenied)
	}
	return transferError(err)
}

// denied reports whether err is a refusal, why, and whether the credentials were wrong.
func denied(err error, hadAuth bool) (why string, wrong, ok bool) {
	var status remoteerrors.ErrUnexpectedStatus
	hasStatus := errors.As(err, &status)
	switch {
	case hasStatus && (status.StatusCode == http.StatusUnauthorized || status.StatusCode == http.StatusForbidden):
		if msg := bodyMessage(status.Body); msg != "" {
			return msg, false, true
		}
		if status.StatusCode == http.StatusForbidden {
			return "denied: requested access to the resource is denied", false, true
		}
		if hadAuth {
			return "unauthorized: incorrect username or password", true, true
		}
		return "unauthorized: authentication required", false, true
	case errors.Is(err, docker.ErrInvalidAuthorization), errors.Is(err, auth.ErrNoToken):
		text := err.Error()
		switch {
		case strings.Contains(text, "no basic auth credentials"):
			return "no basic auth credentials", false, true
		case strings.Contains(text, "insufficient_scope"):
			return "denied: requested access to the resource is denied", false, true
		case hadAuth:
			return "unauthorized: incorrect username or password", true, true
		}
		return "unauthorized: authentication required", false, true
	}
	return "", false, false
}

// transferError adds a registry's own words to its bare status.
func transferError(err error) error {
	var status remoteerrors.ErrUnexpectedStatus
	if errors.As(err, &status) {
		if msg := bodyMessage(status.Body); msg != "" {
			return fmt.Errorf("%s: %w", msg, err)
		}
		if status.StatusCode == http.StatusTooManyRequests {
			return fmt.Errorf("toomanyrequests: too many requests to registry: %w: %w", errdefs.ErrResourceExhausted, err)
		}
	}
	return err
}

// bodyMessage reads the first error of a registry's answer: "code: message".
func bodyMessage(body []byte) string {
	var doc struct {
		Errors []struct{ Code, Message string } `json:"errors"`
	}
	if json.Unmarshal(body, &doc) != nil || len(doc.Errors) == 0 {
		return ""
	}
	e := doc.Errors[0]
	code := strings.ToLower(strings.ReplaceAll(e.Code, "_", " "))
	return printable(strings.TrimPrefix(code+": "+e.Message, ": "))
}

// printable keeps a registry from writing control characters to a terminal.
func printable(s string) string {
	if len(s) > 512 {
		s = s[:512]
	}
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, s)
}
