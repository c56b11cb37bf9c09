package listen

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func options(hosts ...string) Options {
	return Options{Hosts: hosts, Logger: slog.New(slog.DiscardHandler)}
}

func TestUnix(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("giving the socket to a group needs root")
	}
	path := filepath.Join(t.TempDir(), "s")
	opts := options("unix://" + path)
	opts.Group = "1"
	ls, err := All(opts)
	if err != nil {
		t.Fatal(err)
	}
	fi, err := os.Stat(path)
	if err != nil || fi.Mode().Perm() != 0o660 {
		t.Errorf("%v, %v", fi.Mode(), err)
	}
	if _, err := All(opts); err == nil || !strings.Contains(err.Error(), "in use by another process") {
		t.Errorf("second listener: %v", err)
	}
	ls[0].(*net.UnixListener).SetUnlinkOnClose(false) //nolint:forcetypeassert // it is one
	ls[0].Close()                                     // as after kill -9
	ls, err = All(opts)
	if err != nil {
		t.Fatalf("over a stale socket: %v", err)
	}
	ls[0].Close()
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := All(opts); err == nil || !strings.Contains(err.Error(), "is not a socket") {
		t.Errorf("over a file: %v", err)
	}
}

func TestFailureClosesTheRest(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	if _, err := All(options("unix://"+path, "fd://")); err == nil {
		t.Fatal("no error without a service manager")
	}
	if _, err := os.Stat(path); err == nil {
		t.Error("the first socket is left")
	}
}

// certificates writes ca.pem, cert.pem and key.pem for 127.0.0.1, good for both ends.
func certificates(t *testing.T, dir string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "x"}, NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string]*pem.Block{
		"ca.pem": {Type: "CERTIFICATE", Bytes: der}, "cert.pem": {Type: "CERTIFICATE", Bytes: der}, "key.pem": {Type: "EC PRIVATE KEY", Bytes: raw},
	} {
		if err := os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(b), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func TestTLSVerifiesClients(t *testing.T) {
	dir := t.TempDir()
	certificates(t, dir)
	in := func(name string) string { return filepath.Join(dir, name) }
	conf, err := LoadTLS(in("ca.pem"), in("cert.pem"), in("key.pem"), true)
	if err != nil {
		t.Fatal(err)
	}
	opts := options("tcp://127.0.0.1:0")
	opts.TLS = conf
	ls, err := All(opts)
	if err != nil {
		t.Fatal(err)
	}
	defer ls[0].Close()
	go func() {
		for {
			c, err := ls[0].Accept()
			if err != nil {
				return
			}
			if c.(*tls.Conn).Handshake() == nil { //nolint:forcetypeassert // it is one
				_, _ = c.Write([]byte("x"))
			}
			c.Close()
		}
	}()
	pair, err := tls.LoadX509KeyPair(in("cert.pem"), in("key.pem"))
	if err != nil {
		t.Fatal(err)
	}
	for name, certs := range map[string][]tls.Certificate{"with certificate": {pair}, "without": nil} {
		c, err := tls.Dial("tcp", ls[0].Addr().String(), &tls.Config{InsecureSkipVerify: true, Certificates: certs}) //nolint:gosec // a test
		if err == nil {
			_, err = c.Read(make([]byte, 1))
			c.Close()
		}
		if (err == nil) != (certs != nil) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
