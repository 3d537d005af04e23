// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/bcrypt"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/deucaliondb/deucalion/api/adminpb"
)

// makeCertificate writes cert.pem and key.pem for loopback, and returns what to trust.
func makeCertificate(t *testing.T, dir string) *x509.CertPool {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	require.NoError(t, err)
	keyText, err := x509.MarshalECPrivateKey(key)
	require.NoError(t, err)
	certPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert})
	require.NoError(t, os.WriteFile(filepath.Join(dir, "cert.pem"), certPEM, 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "key.pem"), pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: keyText}), 0o600))
	pool := x509.NewCertPool()
	require.True(t, pool.AppendCertsFromPEM(certPEM))
	return pool
}

// webFile writes a web configuration file.
func webFile(t *testing.T, dir, text string) string {
	t.Helper()
	path := filepath.Join(dir, "web.yml")
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	return path
}

func awaitListening(t *testing.T, p *process) (address string) {
	t.Helper()
	require.Eventually(t, func() bool {
		m := listening.FindStringSubmatch(p.log.String())
		if m != nil {
			address = m[1]
		}
		return m != nil
	}, 60*time.Second, 20*time.Millisecond, "%s", p.log)
	return address
}

// TLS, a password, headers and HTTP/2 for everything on the port: HTTP, gRPC, and the graceful stop.
func TestWebConfig(t *testing.T) {
	dir := t.TempDir()
	trust := &tls.Config{RootCAs: makeCertificate(t, dir)}
	hash, err := bcrypt.GenerateFromPassword([]byte("secret"), bcrypt.MinCost)
	require.NoError(t, err)
	file := webFile(t, dir, `
tls_server_config: {cert_file: cert.pem, key_file: key.pem}
http_server_config: {headers: {X-Frame-Options: deny}}
basic_auth_users: {me: '`+string(hash)+`'}
`)
	p := launch(t, t.TempDir(), "--web.config.file="+file, "--web.enable-admin-api")
	address := awaitListening(t, p)

	client := &http.Client{Transport: &http.Transport{TLSClientConfig: trust, ForceAttemptHTTP2: true}, Timeout: 10 * time.Second}
	defer client.CloseIdleConnections()
	ask := func(password string) *http.Response {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+address+"/-/ready", nil)
		require.NoError(t, err)
		if password != "" {
			req.SetBasicAuth("me", password)
		}
		res, err := client.Do(req)
		require.NoError(t, err)
		require.NoError(t, res.Body.Close())
		return res
	}
	require.Eventually(t, func() bool { return ask("secret").StatusCode == http.StatusOK }, 60*time.Second, 20*time.Millisecond)
	good := ask("secret")
	require.Equal(t, 2, good.ProtoMajor)
	require.Equal(t, "deny", good.Header.Get("X-Frame-Options"))
	require.Equal(t, http.StatusUnauthorized, ask("").StatusCode)
	require.Equal(t, http.StatusUnauthorized, ask("wrong").StatusCode)
	code, _, err := get("http://" + address + "/-/ready")
	require.NoError(t, err)
	require.Equal(t, http.StatusBadRequest, code, "no HTTP without TLS")

	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(credentials.NewTLS(trust.Clone())))
	require.NoError(t, err)
	defer conn.Close()
	admin := adminpb.NewAdminClient(conn)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	_, err = admin.TSDBSnapshot(ctx, &adminpb.TSDBSnapshotRequest{})
	require.Equal(t, codes.Unauthenticated, status.Code(err), "%v", err)
	login := metadata.AppendToOutgoingContext(ctx, "authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte("me:secret")))
	snapshot, err := admin.TSDBSnapshot(login, &adminpb.TSDBSnapshotRequest{})
	require.NoError(t, err)
	require.NotEmpty(t, snapshot.Name)

	require.NoError(t, p.cmd.Process.Signal(syscall.SIGTERM))
	require.Equal(t, exitOK, p.exitCode(t), "%s", p.log)
	require.NotContains(t, p.log.String(), "Requests were cut off")
}

// Without TLS gRPC clients speak HTTP/2 from the first byte, to every address that is listened on.
func TestGRPCWithoutTLS(t *testing.T) {
	p := launch(t, t.TempDir(), "--web.listen-address=127.0.0.1:0", "--web.listen-address=127.0.0.1:0", "--web.enable-admin-api")
	p.ready(t)
	all := listening.FindAllStringSubmatch(p.log.String(), -1)
	require.Len(t, all, 2)
	for _, match := range all {
		conn, err := grpc.NewClient(match[1], grpc.WithTransportCredentials(insecure.NewCredentials()))
		require.NoError(t, err)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		_, err = adminpb.NewAdminClient(conn).TSDBCleanTombstones(ctx, &adminpb.TSDBCleanTombstonesRequest{})
		cancel()
		require.NoError(t, err)
		require.NoError(t, conn.Close())
		code, _, err := get("http://" + match[1] + "/-/healthy")
		require.NoError(t, err)
		require.Equal(t, http.StatusOK, code)
	}
}

func TestWebConfigRefused(t *testing.T) {
	dir := t.TempDir()
	makeCertificate(t, dir)
	for text, why := range map[string]string{
		"nonsense: 1": "field nonsense not found",
		"tls_server_config: {cert_file: none.pem, key_file: key.pem}":                 "none.pem",
		"tls_server_config: {cert_file: cert.pem}":                                    "missing one of key or key_file",
		"basic_auth_users: {me: plain}":                                               "hashedSecret too short",
		"http_server_config: {headers: {X-Other: a}}":                                 `HTTP header "X-Other" can not be configured`,
		"tls_server_config: {cert_file: key.pem, key_file: key.pem}":                  "failed to load X509KeyPair",
		"tls_server_config: {cert_file: cert.pem, key_file: key.pem, min_version: X}": "unknown TLS version",
	} {
		var out bytes.Buffer
		code := run(t.Context(), []string{
			"--web.config.file=" + webFile(t, dir, text), "--storage.tsdb.path=" + t.TempDir(),
			"--web.listen-address=127.0.0.1:0", "--cluster.listen-address=127.0.0.1:0", "--cluster.gossip-listen-address=127.0.0.1:0",
		}, &out, &out)
		require.Equal(t, exitFailed, code, text)
		require.Contains(t, strings.ReplaceAll(out.String(), `\"`, `"`), why, text)
		require.Contains(t, out.String(), "web configuration file "+filepath.Join(dir, "web.yml"))
	}
	_, err := readWebConfig(filepath.Join(dir, "absent.yml"))
	require.ErrorIs(t, err, os.ErrNotExist)
}

func TestLifecycle(t *testing.T) {
	file := filepath.Join(t.TempDir(), "c.yml")
	require.NoError(t, os.WriteFile(file, []byte("global: {scrape_interval: 11s}"), 0o600))
	p := launch(t, t.TempDir(), "--web.enable-lifecycle", "--config.file="+file)
	base := p.ready(t)
	post := func(path string) int {
		res, err := http.Post(base+path, "", nil)
		require.NoError(t, err)
		require.NoError(t, res.Body.Close())
		return res.StatusCode
	}
	require.NoError(t, os.WriteFile(file, []byte("global: {scrape_interval: 12s}"), 0o600))
	require.Equal(t, 200, post("/-/reload"))
	_, text, err := get(base + "/api/v1/status/config")
	require.NoError(t, err)
	require.Contains(t, text, "scrape_interval: 12s")
	require.NoError(t, os.WriteFile(file, []byte("global: {scrape_interval: x}"), 0o600))
	require.Equal(t, 500, post("/-/reload"))
	require.Equal(t, 200, post("/-/quit"))
	require.Equal(t, exitOK, p.exitCode(t), "%s", p.log)
}
