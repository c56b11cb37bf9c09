package cli

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// authority makes certificates for a test.
type authority struct {
	t    *testing.T
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T, dir string) *authority {
	a := &authority{t: t, dir: dir}
	a.cert, a.key = a.issue("ca", true)
	return a
}

// issue writes NAME.pem and NAME-key.pem.
func (a *authority) issue(name string, ca bool) (*x509.Certificate, *ecdsa.PrivateKey) {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: ca, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	parent, signer := tmpl, key
	if !ca {
		parent, signer = a.cert, a.key
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, parent, &key.PublicKey, signer)
	if err != nil {
		a.t.Fatal(err)
	}
	raw, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		a.t.Fatal(err)
	}
	for file, block := range map[string]*pem.Block{
		name + ".pem": {Type: "CERTIFICATE", Bytes: der}, name + "-key.pem": {Type: "EC PRIVATE KEY", Bytes: raw},
	} {
		if err := os.WriteFile(filepath.Join(a.dir, file), pem.EncodeToMemory(block), 0o600); err != nil {
			a.t.Fatal(err)
		}
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	return cert, key
}

// serveTLS starts a daemon that wants a certificate of the authority.
func (a *authority) serveTLS(h http.Handler) string {
	a.t.Helper()
	pair, err := tls.LoadX509KeyPair(filepath.Join(a.dir, "server.pem"), filepath.Join(a.dir, "server-key.pem"))
	if err != nil {
		a.t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{
		Certificates: []tls.Certificate{pair}, ClientCAs: pool, ClientAuth: tls.RequireAndVerifyClientCert, MinVersion: tls.VersionTLS12,
	})
	if err != nil {
		a.t.Fatal(err)
	}
	srv := &http.Server{Handler: h, ErrorLog: nil}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = srv.Serve(l)
	}()
	a.t.Cleanup(func() {
		_ = srv.Close()
		<-done
	})
	return "tcp://" + l.Addr().String()
}

func runApp(t *testing.T, args ...string) (string, error) {
	t.Helper()
	var out bytes.Buffer
	a := &app{name: "wherry", args: args, out: &out, err: io.Discard, signals: &signals{cancel: func(error) {}}}
	err := a.run(t.Context())
	return out.String(), err
}

func TestTLS(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("DOCKER_CONFIG", dir)
	t.Setenv("WHERRY_HOST", "")
	t.Setenv("DOCKER_TLS_VERIFY", "")
	auth := newAuthority(t, dir)
	auth.issue("server", false)
	auth.issue("cert", false)
	if err := os.Rename(filepath.Join(dir, "cert-key.pem"), filepath.Join(dir, "key.pem")); err != nil {
		t.Fatal(err)
	}
	host := auth.serveTLS(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Api-Version", "1.56")
		fmt.Fprint(w, `[{"Id":"abc","Names":["/c"]}]`)
	}))
	ps := []string{"ps", "-a", "--format", "{{.Names}}"}
	for name, args := range map[string][]string{
		"files of the configuration directory": {"--tlsverify", "-H", host},
		"files by flag": {
			"--tlsverify", "--tlscacert", filepath.Join(dir, "ca.pem"), "--tlscert", filepath.Join(dir, "cert.pem"),
			"--tlskey", filepath.Join(dir, "key.pem"), "-H", host,
		},
		"without verification": {"--tls", "-H", host},
	} {
		if out, err := runApp(t, append(args, ps...)...); err != nil || out != "c\n" {
			t.Errorf("%s: got %q %v", name, out, err)
		}
	}
	if _, err := runApp(t, append([]string{"-H", host}, ps...)...); err == nil {
		t.Error("plain HTTP is answered")
	}
	other := t.TempDir()
	newAuthority(t, other)
	_, err := runApp(t, append([]string{"--tlsverify", "--tlscacert", filepath.Join(other, "ca.pem"), "-H", host}, ps...)...)
	if err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("a foreign authority: got %v", err)
	}
	t.Setenv("DOCKER_TLS_VERIFY", "1")
	t.Setenv("DOCKER_CERT_PATH", dir)
	t.Setenv("DOCKER_HOST", host)
	if out, err := runApp(t, ps...); err != nil || out != "c\n" {
		t.Errorf("by environment: got %q %v", out, err)
	}
}
