package listen

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"os"
)

// TLS is a loaded server configuration.
type TLS struct{ config *tls.Config }

// LoadTLS reads the certificate and, if clients are to be verified, the CA that signs theirs.
func LoadTLS(ca, cert, key string, verify bool) (*TLS, error) {
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		return nil, fmt.Errorf("could not load X509 key pair (cert: %q, key: %q): %w", cert, key, err)
	}
	c := &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"}}
	if !verify {
		return &TLS{c}, nil
	}
	pem, err := os.ReadFile(ca)
	if err != nil {
		return nil, fmt.Errorf("could not read CA certificate %q: %w", ca, err)
	}
	c.ClientCAs = x509.NewCertPool()
	if !c.ClientCAs.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("failed to append certificates from PEM file: %q", ca)
	}
	c.ClientAuth = tls.RequireAndVerifyClientCert
	return &TLS{c}, nil
}

func (t *TLS) wrap(l net.Listener) net.Listener { return tls.NewListener(l, t.config) }
