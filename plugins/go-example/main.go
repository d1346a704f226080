// A signer for macp-auth in Go: one P-256 key from a PEM file.
//
// The service starts this program, and speaks the protocol of docs/signer-protocol.md with it. This file is the
// signer; protocol.go is the protocol, and the same for any signer.
package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net"
	"os"
	"sync/atomic"
)

const keyFile = "MACP_AUTH_GO_EXAMPLE_KEY_FILE"

// A signer signs with one key.
type signer struct {
	key     *ecdsa.PrivateKey
	version keyVersion
}

type keyVersion struct {
	Kid       string    `json:"kid"`
	Algorithm string    `json:"algorithm"`
	PublicJWK publicJWK `json:"public_jwk"`
	CanSign   bool      `json:"can_sign"`
}

// publicJWK has its members in the order that a thumbprint needs (RFC 7638, section 3.3).
type publicJWK struct {
	Crv string `json:"crv"`
	Kty string `json:"kty"`
	X   string `json:"x"`
	Y   string `json:"y"`
}

func newSigner(text []byte) (*signer, error) {
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, notAKey()
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	key, isECDSA := parsed.(*ecdsa.PrivateKey)
	if err != nil || !isECDSA || key.Curve != elliptic.P256() {
		return nil, notAKey()
	}
	public, err := key.PublicKey.ECDH()
	if err != nil {
		return nil, notAKey()
	}
	point := public.Bytes() // 4, X, Y (SEC 1, section 2.3.3)
	jwk := publicJWK{"P-256", "EC", base64url(point[1:33]), base64url(point[33:65])}
	canonical, err := json.Marshal(jwk)
	if err != nil {
		return nil, err
	}
	// A thumbprint is the best kid: no two keys share one, and every worker computes the same.
	thumbprint := sha256.Sum256(canonical)
	return &signer{key, keyVersion{base64url(thumbprint[:]), "ES256", jwk, true}}, nil
}

func notAKey() error {
	return newError(misconfigured, "", keyFile+" must be a P-256 private key, PKCS #8 in PEM, without a passphrase; "+
		"create one with: openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256")
}

// sign returns R and S, as 32 bytes each (RFC 7518, section 3.4).
func (s *signer) sign(input []byte) ([]byte, error) {
	digest := sha256.Sum256(input)
	r, v, err := ecdsa.Sign(rand.Reader, s.key, digest[:])
	if err != nil {
		return nil, err
	}
	signature := make([]byte, 64)
	r.FillBytes(signature[:32])
	v.FillBytes(signature[32:])
	return signature, nil
}

func base64url(data []byte) string { return base64.RawURLEncoding.EncodeToString(data) }

// readKey returns the content of the key's file, which only this user and group may read.
func readKey(environment map[string]string) ([]byte, error) {
	path := environment[keyFile]
	if path == "" {
		return nil, newError(misconfigured, "", keyFile+" must be set: the path of a P-256 private key in PEM")
	}
	info, err := os.Stat(path)
	if err != nil {
		return nil, newError(misconfigured, "", "cannot read the file in "+keyFile)
	}
	if mode := info.Mode().Perm(); mode&0o037 != 0 {
		return nil, newError(misconfigured, "", fmt.Sprintf(
			"the file in %s is accessible to others (mode %04o); make it 0640 or stricter", keyFile, mode))
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, newError(misconfigured, "", "cannot read the file in "+keyFile)
	}
	return bytes.TrimSpace(text), nil
}

type nothing struct{}

type settings struct {
	Environment map[string]string `json:"environment"`
	State       []byte            `json:"state"` // of open: what prepare returned
}

func methods() map[string]method {
	var opened atomic.Pointer[signer]

	current := func() (*signer, error) {
		if signer := opened.Load(); signer != nil {
			return signer, nil
		}
		return nil, newError(unavailable, "closed", "the signer is closed")
	}
	return map[string]method{
		"hello": with(func(_ context.Context, _ nothing) (any, error) {
			return map[string]any{
				"protocol":  1,
				"name":      "go-example",
				"prefix":    "MACP_AUTH_GO_EXAMPLE_",
				"variables": []map[string]any{{"name": keyFile}},
			}, nil
		}),
		"ping": with(func(_ context.Context, _ nothing) (any, error) { return nothing{}, nil }),
		// Once, before the service listens. Every worker process gets the state, so all have the same key.
		"prepare": with(func(_ context.Context, params settings) (any, error) {
			text, err := readKey(params.Environment)
			if err != nil {
				return nil, err
			}
			if _, err := newSigner(text); err != nil {
				return nil, err
			}
			return map[string][]byte{"state": text}, nil
		}),
		// In every worker. A signer with a backend connects later, so that the backend may be down now.
		"open": with(func(_ context.Context, params settings) (any, error) {
			signer, err := newSigner(params.State)
			if err != nil {
				return nil, err
			}
			opened.Store(signer)
			return nothing{}, nil
		}),
		// Called periodically. A backend that rotates reads its keys here.
		"key_versions": with(func(_ context.Context, _ nothing) (any, error) {
			signer, err := current()
			if err != nil {
				return nil, err
			}
			return map[string]any{"versions": []keyVersion{signer.version}}, nil
		}),
		"sign": with(func(_ context.Context, params struct {
			Kid   string `json:"kid"`
			Input []byte `json:"input"`
		}) (any, error) {
			signer, err := current()
			if err != nil {
				return nil, err
			}
			if params.Kid != signer.version.Kid {
				return nil, newError(unknownKid, "", "there is no such version")
			}
			signature, err := signer.sign(params.Input)
			return map[string][]byte{"signature": signature}, err
		}),
		"close": with(func(_ context.Context, _ nothing) (any, error) {
			opened.Store(nil)
			return nothing{}, nil
		}),
	}
}

func main() {
	connection, err := net.FileConn(os.Stdin)
	if err != nil {
		fmt.Fprintln(os.Stderr, "macp-auth starts this program: set MACP_AUTH_SIGNER_COMMAND to its path")
		os.Exit(2)
	}
	if err := serve(connection, methods()); err != nil { // else the service is gone
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
