package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/core/remotes"
	remoteerrors "github.com/containerd/containerd/v2/core/remotes/errors"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"
)

const (
	// maxBackoff bounds the pause between two attempts; it grows by backoffStep.
	backoffStep = 1 * time.Second
	maxBackoff  = 10 * time.Second

	// pullPrefix begins the names of partial downloads; the digest follows.
	pullPrefix = "pull-"
)

// fetchDocument brings a manifest, index or configuration into the content
// store and returns it. ctx must hold a lease.
func (s *Store) fetchDocument(ctx context.Context, f remotes.Fetcher, desc ocispec.Descriptor, labels map[string]string) ([]byte, error) {
	if desc.Size > maxDocument {
		return nil, fmt.Errorf("%s is announced with %d bytes, more than %d: %w", desc.Digest, desc.Size, maxDocument, errdefs.ErrInvalidArgument)
	}
	if err := s.fetchBlob(ctx, f, desc, labels, nil, sink{}); err != nil {
		return nil, err
	}
	return readDocument(ctx, s.ContentStore(), desc)
}

// fetchBlob brings a blob into the content store, resuming what an earlier
// attempt left, also that of another process. ctx must hold a lease.
// A blob that is new gets the labels.
// If it is downloaded from its first byte, t gets the bytes as they come.
func (s *Store) fetchBlob(ctx context.Context, f remotes.Fetcher, desc ocispec.Descriptor, labels map[string]string, t *tee, out sink) error {
	defer t.end(errNotStreamed)
	unlock := s.keys.lock("blob:" + desc.Digest.String())
	defer unlock()
	if ok, err := s.holdBlob(ctx, desc); ok || err != nil {
		return err
	}
	for attempt := 1; ; attempt++ {
		err := s.fetchOnce(ctx, f, desc, labels, t, out)
		if err == nil || attempt >= int(s.attempts.Load()) || !retryable(err) || ctx.Err() != nil {
			return err
		}
		s.log.Debug("retry a download", "blob", desc.Digest, "attempt", attempt, "err", err)
		if err := backoff(ctx, min(time.Duration(attempt)*backoffStep, maxBackoff), out, desc.Digest); err != nil {
			return err
		}
	}
}

// backoff waits and counts down for people.
func backoff(ctx context.Context, d time.Duration, out sink, dgst digest.Digest) error {
	for left := int(d / time.Second); left > 0; left-- {
		unit := "seconds"
		if left == 1 {
			unit = "second"
		}
		out.status(short(dgst), fmt.Sprintf("Retrying in %d %s", left, unit))
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

// holdBlob adds a blob that is here to the lease of ctx.
func (s *Store) holdBlob(ctx context.Context, desc ocispec.Descriptor) (bool, error) {
	if _, err := s.ContentStore().Info(ctx, desc.Digest); err != nil {
		if errdefs.IsNotFound(err) {
			return false, nil
		}
		return false, err
	}
	id, ok := leases.FromContext(ctx)
	if !ok {
		return true, nil
	}
	err := s.leases.AddResource(ctx, leases.Lease{ID: id}, leases.Resource{ID: desc.Digest.String(), Type: "content"})
	if err != nil {
		return false, err
	}
	_, err = s.ContentStore().Info(ctx, desc.Digest) // it may have been collected meanwhile
	if errdefs.IsNotFound(err) {
		return false, nil
	}
	return err == nil, err
}

// fetchOnce is one attempt. The partial blob is under no lease, so that it
// outlives a failed transfer; the metadata database expires it after a day.
func (s *Store) fetchOnce(ctx context.Context, f remotes.Fetcher, desc ocispec.Descriptor, labels map[string]string, t *tee, out sink) error {
	ref := pullPrefix + desc.Digest.String()
	w, err := content.OpenWriter(unleased(ctx), s.ContentStore(), content.WithRef(ref), content.WithDescriptor(desc))
	if errdefs.IsAlreadyExists(err) {
		_, err = s.holdBlob(ctx, desc)
		return err
	}
	if err != nil {
		return fmt.Errorf("begin download of %s: %w", desc.Digest, err)
	}
	defer w.Close()
	st, err := w.Status()
	if err != nil {
		return err
	}
	if st.Offset > desc.Size {
		if err := w.Truncate(0); err != nil {
			return err
		}
		st.Offset = 0
	}
	if st.Offset != 0 {
		t.end(errNotStreamed) // the beginning came before
	}
	if st.Offset < desc.Size || desc.Size == 0 {
		if err := s.receive(ctx, f, desc, w, st.Offset, t, out); err != nil {
			t.end(errNotStreamed)
			if errdefs.IsInvalidArgument(err) || errors.Is(err, unix.ENOSPC) {
				s.abort(ctx, ref)
			}
			return err
		}
	}
	t.end(nil)
	out.status(short(desc.Digest), "Verifying Checksum")
	// The commit adds the blob to the lease.
	err = w.Commit(ctx, desc.Size, desc.Digest, content.WithLabels(labels))
	switch {
	case errdefs.IsAlreadyExists(err):
		_, err = s.holdBlob(ctx, desc)
		return err
	case errdefs.IsFailedPrecondition(err), errdefs.IsInvalidArgument(err):
		s.abort(ctx, ref)
		s.log.Warn("a registry sent other content than it announced", "blob", desc.Digest, "err", err)
		return fmt.Errorf("%s verification failed for digest %s: %w", kindText(desc), desc.Digest, errdefs.ErrInvalidArgument)
	case err != nil:
		return fmt.Errorf("store %s: %w", desc.Digest, err)
	}
	return nil
}

// kindText names a blob in Docker's messages.
func kindText(desc ocispec.Descriptor) string {
	switch {
	case images.IsManifestType(desc.MediaType), images.IsIndexType(desc.MediaType):
		return "manifest"
	case images.IsConfigType(desc.MediaType):
		return "image config"
	}
	return "filesystem layer"
}

// abort removes a download whose content is not what it should be.
func (s *Store) abort(ctx context.Context, ref string) {
	if err := s.ContentStore().Abort(context.WithoutCancel(ctx), ref); err != nil && !errdefs.IsNotFound(err) {
		s.log.Warn("remove a damaged download", "ref", ref, "err", err)
	}
}

// receive copies the rest of a blob from the registry.
func (s *Store) receive(ctx context.Context, f remotes.Fetcher, desc ocispec.Descriptor, w content.Writer, offset int64, t *tee, out sink) error {
	rc, err := f.Fetch(ctx, desc)
	if err != nil {
		return err
	}
	defer rc.Close()
	if offset > 0 {
		offset, err = skipTo(rc, w, offset)
		if err != nil {
			return err
		}
	}
	m := &meter{sink: out, id: short(desc.Digest), action: "Downloading", total: desc.Size}
	src := &counted{r: io.LimitReader(rc, desc.Size-offset+1), m: m}
	src.n.Store(offset)
	n, err := io.CopyBuffer(teeWriter{w, t}, src, make([]byte, 256<<10))
	switch {
	case errdefs.IsFailedPrecondition(err): // the reader counts too
		return fmt.Errorf("download %s: more than the announced %d bytes: %w", desc.Digest, desc.Size, errdefs.ErrInvalidArgument)
	case err != nil:
		return fmt.Errorf("download %s: %w", desc.Digest, err)
	}
	switch got := offset + n; {
	case got < desc.Size:
		return fmt.Errorf("download %s: got %d of %d bytes: %w", desc.Digest, got, desc.Size, io.ErrUnexpectedEOF)
	case got > desc.Size:
		_ = w.Truncate(0)
		return fmt.Errorf("download %s: more than the announced %d bytes: %w", desc.Digest, desc.Size, errdefs.ErrInvalidArgument)
	}
	return nil
}

// teeWriter writes to the content store and then to the tee. It has no
// ReadFrom, so that the buffer given is used.
type teeWriter struct {
	w io.Writer
	t *tee
}

func (t teeWriter) Write(p []byte) (int, error) {
	n, err := t.w.Write(p)
	t.t.write(p[:n])
	return n, err
}

// skipTo continues at an offset, or starts again where the registry cannot.
func skipTo(rc io.ReadCloser, w content.Writer, offset int64) (int64, error) {
	if sk, ok := rc.(io.Seeker); ok {
		if _, err := sk.Seek(offset, io.SeekStart); err == nil {
			return offset, nil
		}
	}
	return 0, w.Truncate(0)
}

func retryable(err error) bool {
	var status remoteerrors.ErrUnexpectedStatus
	if errors.As(err, &status) {
		return status.StatusCode >= 500 || status.StatusCode == http.StatusTooManyRequests || status.StatusCode == http.StatusRequestTimeout
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, unix.ENOSPC) || errdefs.IsNotFound(err) || errdefs.IsInvalidArgument(err) {
		return false
	}
	var netErr net.Error
	return errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) || errors.Is(err, unix.ECONNRESET) || errors.Is(err, unix.ECONNREFUSED) || errors.As(err, &netErr)
}
