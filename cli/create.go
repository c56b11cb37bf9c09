package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	"github.com/spf13/pflag"

	"github.com/wherry-engine/wherry/client"
	"github.com/wherry-engine/wherry/ociref"
)

func createCommand() command {
	return command{
		group: "container", name: "create", top: "create",
		usage: "[OPTIONS] IMAGE [COMMAND] [ARG...]", short: "Make a container without starting it",
		args: minArgs(1), oneWord: true,
		run: func(a *app, f *pflag.FlagSet) runFunc {
			c := newContainerFlags(f)
			return func(ctx context.Context, args []string) error {
				req, err := c.request(a, args)
				if err != nil {
					return a.runError("create", err)
				}
				cl, err := a.client()
				if err != nil {
					return err
				}
				id, err := a.create(ctx, cl, c, req, nil)
				if err != nil {
					return err
				}
				fmt.Fprintln(a.out, id)
				return nil
			}
		},
	}
}

// create makes the container, pulling its image as --pull says, and returns
// its ID. It calls meanwhile, unless that is nil, while the daemon is at work.
func (a *app) create(ctx context.Context, cl *client.Client, c *containerFlags, req container.CreateRequest, meanwhile func()) (string, error) {
	switch c.pull {
	case "always", "missing", "never", "":
	default:
		return "", invalidf("invalid pull option: '%s': must be one of \"always\", \"missing\" or \"never\"", c.pull)
	}
	ref, err := ociref.ParseTagged(req.Image)
	named := err == nil
	if err != nil && !ociref.IsIDPrefix(req.Image) {
		return "", err
	}
	cid, err := openCIDFile(c.cidfile)
	if err != nil {
		return "", err
	}
	if cid != nil {
		a.signals.watch() // to remove it when one arrives
	}
	defer cid.close()
	if c.pull == "always" && named {
		if err := a.pullFor(ctx, cl, ref, c); err != nil {
			return "", err
		}
	}
	later, err := a.laterNetworks(ctx, cl, &req)
	if err != nil {
		return "", err
	}
	resp, err := a.postCreate(ctx, cl, c, req, meanwhile)
	if err != nil && errdefs.IsNotFound(err) && named && c.pull == "missing" {
		if !c.quiet {
			fmt.Fprintf(a.err, "Unable to find image '%s' locally\n", ref.Familiar())
		}
		if err := a.pullFor(ctx, cl, ref, c); err != nil {
			return "", err
		}
		resp, err = a.postCreate(ctx, cl, c, req, nil)
	}
	if err != nil {
		return "", err
	}
	a.warn(resp.Warnings)
	for name, ep := range later {
		err := cl.Post(ctx, "/networks/"+client.Segment(name)+"/connect", nil, network.ConnectRequest{Container: resp.ID, EndpointConfig: ep}, nil)
		if err != nil {
			return resp.ID, err
		}
	}
	return resp.ID, cid.write(resp.ID)
}

func (a *app) postCreate(ctx context.Context, cl *client.Client, c *containerFlags, req container.CreateRequest, meanwhile func()) (container.CreateResponse, error) {
	q := url.Values{}
	if c.name != "" {
		q.Set("name", c.name)
	}
	if c.platform != "" {
		q.Set("platform", c.platform)
	}
	var resp container.CreateResponse
	err := cl.Call(ctx, client.Request{Method: http.MethodPost, Path: "/containers/create", Query: q, JSON: req, Meanwhile: meanwhile}, &resp)
	return resp, err
}

// laterNetworks takes all networks but the first out of a request to a daemon
// before API 1.44, which has to be asked for each of them on its own.
func (a *app) laterNetworks(ctx context.Context, cl *client.Client, req *container.CreateRequest) (map[string]*network.EndpointSettings, error) {
	all := req.NetworkingConfig.EndpointsConfig
	first := string(req.HostConfig.NetworkMode)
	special := len(all) > 1
	if ep := all[first]; ep != nil && len(ep.MacAddress) > 0 {
		special = true
	}
	if !special {
		return nil, nil
	}
	ok, err := cl.Negotiated(ctx, "1.44")
	if err != nil || ok {
		return nil, err
	}
	if ep := all[first]; ep != nil && len(ep.MacAddress) > 0 {
		return nil, invalidf("a MAC address requires API version 1.44, the daemon speaks %s", cl.Version())
	}
	req.NetworkingConfig = &network.NetworkingConfig{EndpointsConfig: map[string]*network.EndpointSettings{first: all[first]}}
	later := map[string]*network.EndpointSettings{}
	for n, ep := range all {
		if n != first {
			later[n] = ep
		}
	}
	return later, nil
}

// pullFor fetches a container's image, its progress going to standard error.
func (a *app) pullFor(ctx context.Context, cl *client.Client, ref ociref.Reference, c *containerFlags) error {
	out := a.err
	if c.quiet {
		out = io.Discard
	}
	return a.pull(ctx, cl, ref, pullOptions{platform: c.platform, out: out})
}

// cidFile is the file of --cidfile; nil if there is none.
type cidFile struct {
	f       *os.File
	written bool
}

func openCIDFile(path string) (*cidFile, error) {
	if path == "" {
		return nil, nil
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if errors.Is(err, os.ErrExist) {
		return nil, invalidf("container ID file found, make sure the other container isn't running or delete %s", path)
	}
	if err != nil {
		return nil, fmt.Errorf("failed to create the container ID file: %w", err)
	}
	return &cidFile{f: f}, nil
}

func (c *cidFile) write(id string) error {
	if c == nil {
		return nil
	}
	c.written = true
	_, err := c.f.WriteString(id)
	return err
}

// close removes a file that nothing was written to.
func (c *cidFile) close() {
	if c == nil {
		return
	}
	_ = c.f.Close()
	if !c.written {
		_ = os.Remove(c.f.Name())
	}
}
