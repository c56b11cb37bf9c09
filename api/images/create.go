package images

import (
	"bufio"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/wherry-engine/wherry/api/route"
	"github.com/wherry-engine/wherry/image"
	"github.com/wherry-engine/wherry/ociref"
)

// Create answers POST /images/create: a pull (fromImage) or an import (fromSrc).
func (h Handlers) Create(w http.ResponseWriter, r *http.Request) error {
	if err := route.Form(r); err != nil {
		return err
	}
	var platform *ocispec.Platform
	if v := r.FormValue("platform"); v != "" && route.AtLeast(r, "1.32") {
		p, err := parsePlatform(v)
		if err != nil {
			return err
		}
		platform = &p
	}
	if r.FormValue("fromImage") != "" {
		return h.pull(w, r, platform)
	}
	return h.importImage(w, r, platform)
}

func (h Handlers) pull(w http.ResponseWriter, r *http.Request, platform *ocispec.Platform) error {
	auth, err := authOf(r)
	if err != nil {
		return err
	}
	ref, err := pullReference(r.FormValue("fromImage"), r.FormValue("tag"))
	if err != nil {
		return err
	}
	meta := map[string][]string{}
	for k, v := range r.Header {
		if strings.HasPrefix(k, "X-Meta-") {
			meta[k] = v
		}
	}
	out := newStream(w)
	return out.end(h.o.Images.Pull(r.Context(), image.PullRequest{
		Ref: ref.Familiar(), All: ref.NameOnly(), Platform: platform, Auth: auth, MetaHeaders: meta,
	}, out))
}

// pullReference joins an image and its tag, which may also be a digest.
func pullReference(name, tag string) (ociref.Reference, error) {
	ref, err := ociref.Parse(strings.TrimSuffix(name, ":"))
	if err != nil || tag == "" {
		return ref, err
	}
	if strings.Contains(tag, ":") {
		d, err := ociref.ParseDigest(tag)
		if err != nil {
			return ref, err
		}
		return ref.WithDigest(d), nil
	}
	if ref.Digest != "" {
		return ref, nil
	}
	return ref.WithTag(tag)
}

func (h Handlers) importImage(w http.ResponseWriter, r *http.Request, platform *ocispec.Platform) error {
	ref, err := repoTag(r)
	if err != nil {
		return err
	}
	cfg := image.Config{}
	if platform != nil {
		cfg.Platform = *platform
	}
	if err := image.ApplyChanges(&cfg, r.Form["changes"]); err != nil {
		return err
	}
	src := r.FormValue("fromSrc")
	cfg.Comment = r.FormValue("message")
	out := newStream(w)
	body, err := h.source(r, src, out)
	if err != nil {
		return out.end(err)
	}
	defer body.Close()
	if cfg.Comment == "" {
		cfg.Comment = "Imported from " + src
	}
	_, err = h.o.Images.Import(r.Context(), body, ref, cfg, out)
	return out.end(err)
}

// repoTag joins the parameters repo and tag; "" if there is no repo.
func repoTag(r *http.Request) (string, error) {
	repo, tag := r.FormValue("repo"), r.FormValue("tag")
	if repo == "" {
		return "", nil
	}
	ref, err := ociref.Parse(repo)
	if err != nil {
		return "", err
	}
	if ref.Digest != "" {
		return "", invalid("cannot import digest reference")
	}
	if tag != "" {
		if ref, err = ref.WithTag(tag); err != nil {
			return "", err
		}
	}
	return ref.WithDefaultTag().String(), nil
}

// source opens what is imported: the body ("-") or a URL.
func (h Handlers) source(r *http.Request, src string, out *stream) (io.ReadCloser, error) {
	if src == "-" {
		body := bufio.NewReader(r.Body)
		if _, err := body.Peek(1); errors.Is(err, io.EOF) {
			return nil, invalid("import: the archive is empty")
		}
		return readCloser{body, r.Body}, nil
	}
	if src == "" {
		return nil, invalid("fromImage or fromSrc must be given")
	}
	if !strings.Contains(src, "://") {
		src = "http://" + src
	}
	u, err := url.Parse(src)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, invalid("invalid source %q: it must be '-' or an http URL", src)
	}
	out.Status("", "Downloading from "+u.Redacted())
	return h.o.Fetch(r.Context(), u.String())
}

type readCloser struct {
	io.Reader
	io.Closer
}
