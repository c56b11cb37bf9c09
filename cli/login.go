package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/registry"
	"github.com/spf13/pflag"

	"github.com/wherry-engine/wherry/cli/config"
	"github.com/wherry-engine/wherry/cli/terminal"
)

func loginCommand() command {
	return command{
		name: "login", usage: "[OPTIONS] [SERVER]", short: "Sign in to a registry", common: 8,
		long: "Sign in to a registry.\nWithout SERVER, Docker Hub is meant.",
		args: maxArgs(1),
		run: func(a *app, f *pflag.FlagSet) runFunc {
			l := &login{a: a}
			f.StringVarP(&l.user, "username", "u", "", "Username")
			f.StringVarP(&l.password, "password", "p", "", "Password or access token")
			f.BoolVar(&l.stdin, "password-stdin", false, "Read the password or access token from standard input")
			return func(ctx context.Context, args []string) error {
				if f.Changed("username") && l.user == "" {
					return invalidf("username is empty")
				}
				l.given = f.Changed("password")
				if len(args) == 1 {
					l.server = args[0]
				}
				return l.run(ctx)
			}
		},
	}
}

type login struct {
	a                      *app
	user, password, server string
	stdin, given           bool
}

func (l *login) run(ctx context.Context) error {
	if err := l.check(); err != nil {
		return err
	}
	key := registryKey(l.server)
	stored, err := l.a.config().Credentials(key)
	if err == nil && l.user == "" && l.password == "" && (stored.Username != "" || stored.IdentityToken != "") {
		fmt.Fprintln(l.a.out, "Authenticating with existing credentials...")
		err := l.authenticate(ctx, key, stored)
		if err == nil || !errdefs.IsUnauthorized(err) {
			return err
		}
		fmt.Fprintln(l.a.err, l.a.message(err))
	}
	if err := l.ask(ctx, key, stored.Username); err != nil {
		return err
	}
	return l.authenticate(ctx, key, registry.AuthConfig{Username: l.user, Password: l.password, ServerAddress: key})
}

func (l *login) check() error {
	if l.given {
		fmt.Fprintln(l.a.err, "WARNING! Using --password via the CLI is insecure. Use --password-stdin.")
		if l.stdin {
			return invalidf("conflicting options: cannot specify both --password and --password-stdin")
		}
		if l.password == "" {
			return invalidf("password is empty")
		}
	}
	if !l.stdin {
		return nil
	}
	if l.user == "" {
		return invalidf("the --password-stdin option requires --username to be set")
	}
	raw, err := io.ReadAll(l.a.in)
	if err != nil {
		return err
	}
	l.password = strings.TrimRight(string(raw), "\r\n")
	if l.password == "" {
		return invalidf("password is empty")
	}
	return nil
}

// ask prompts for what is missing.
func (l *login) ask(ctx context.Context, key, before string) error {
	if (l.user == "" || l.password == "") && !terminal.Is(l.a.in) {
		return errors.New("cannot perform an interactive login from a non-TTY device")
	}
	in := bufio.NewReader(l.a.in)
	if l.user == "" {
		if key == config.DockerHub {
			fmt.Fprintln(l.a.out, "Log in with your Docker ID or email address to push and pull images from Docker Hub.")
		}
		prompt := "Username: "
		if before != "" {
			prompt = "Username (" + before + "): "
		}
		fmt.Fprint(l.a.out, prompt)
		line, err := in.ReadString('\n')
		if err != nil {
			return err
		}
		if l.user = strings.TrimSpace(line); l.user == "" {
			l.user = before
		}
		if l.user == "" {
			return invalidf("username required")
		}
	}
	if l.password != "" {
		return nil
	}
	fmt.Fprint(l.a.out, "Password: ")
	line, err := l.secret(ctx, in)
	fmt.Fprintln(l.a.out)
	if err != nil {
		return err
	}
	if l.password = strings.TrimRight(line, "\r\n"); l.password == "" {
		return invalidf("password required")
	}
	return nil
}

// secret reads a line without echo, which is switched on again even if a
// signal ends it.
func (l *login) secret(ctx context.Context, in *bufio.Reader) (string, error) {
	l.a.signals.watch()
	state, err := terminal.NoEcho(l.a.in)
	if err != nil {
		return "", err
	}
	defer state.Restore() //nolint:errcheck // nothing to be done
	type result struct {
		line string
		err  error
	}
	read := make(chan result, 1)
	go func() {
		line, err := in.ReadString('\n')
		read <- result{line, err}
	}()
	select {
	case r := <-read:
		return r.line, r.err
	case <-ctx.Done():
		return "", context.Cause(ctx)
	}
}

func (l *login) authenticate(ctx context.Context, key string, auth registry.AuthConfig) error {
	cl, err := l.a.client()
	if err != nil {
		return err
	}
	auth.ServerAddress = key
	var r registry.AuthResponse
	if err := cl.Post(ctx, "/auth", nil, auth, &r); err != nil {
		return err
	}
	if r.IdentityToken != "" {
		auth.Password, auth.IdentityToken = "", r.IdentityToken
	}
	conf := l.a.config()
	if conf.InFile(key) {
		fmt.Fprintf(l.a.err, "\nWARNING! Your credentials are stored unencrypted in '%s'.\nConfigure a credential helper to remove this warning.\n\n", conf.Path())
	}
	if err := conf.Store(key, auth); err != nil {
		return fmt.Errorf("error saving credentials: %w", err)
	}
	if r.Status != "" {
		fmt.Fprintln(l.a.out, r.Status)
	}
	return nil
}

// registryKey is the name under which a server's credentials are kept.
func registryKey(server string) string {
	if server == "" {
		return config.DockerHub
	}
	if server == config.DockerHub {
		return server
	}
	s := strings.TrimPrefix(strings.TrimPrefix(server, "https://"), "http://")
	host, _, _ := strings.Cut(s, "/")
	return config.AuthKey(host)
}

func logoutCommand() command {
	return command{
		name: "logout", usage: "[SERVER]", short: "Forget the sign-in to a registry", common: 9,
		long: "Forget the sign-in to a registry.\nWithout SERVER, Docker Hub is meant.",
		args: maxArgs(1),
		run: func(a *app, _ *pflag.FlagSet) runFunc {
			return func(_ context.Context, args []string) error {
				server := ""
				if len(args) == 1 {
					server = args[0]
				}
				key := registryKey(server)
				fmt.Fprintf(a.out, "Removing login credentials for %s\n", key)
				if err := a.config().Erase(key); err != nil {
					return fmt.Errorf("could not erase credentials: %w", err)
				}
				return nil
			}
		},
	}
}
